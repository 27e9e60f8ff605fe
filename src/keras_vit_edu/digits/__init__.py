"""A digit in a picture: found, brought into MNIST's form, and told from what is no digit.

The public names are handed on by `keras_vit_edu.datasets`.
"""

from keras_vit_edu.digits.digit_photo import digit_from_photo
from keras_vit_edu.digits.looks_like_digit import DigitMeasures, check_digit, measure_digit

__all__ = ["DigitMeasures", "check_digit", "digit_from_photo", "measure_digit"]
