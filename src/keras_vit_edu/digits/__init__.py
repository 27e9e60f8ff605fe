"""Find a digit in a picture, convert it to MNIST's form, and refuse pictures without a digit.

`keras_vit_edu.datasets` exports the public names.
"""

from keras_vit_edu.digits.digit_photo import digit_from_photo
from keras_vit_edu.digits.looks_like_digit import DigitMeasures, check_digit, measure_digit

__all__ = ["DigitMeasures", "check_digit", "digit_from_photo", "measure_digit"]
