"""`python -m keras_vit_edu` is the command `keras-vit-edu`."""

from keras_vit_edu.cli import main

if __name__ == "__main__":
    main()
