"""Compare the numbers of all backends with each other, and with a float64 oracle in NumPy."""

from keras_vit_edu.parity import oracle, testing
from keras_vit_edu.parity.derivatives import output_and_gradients
from keras_vit_edu.parity.own_code import ParityError, check, check_saving
from keras_vit_edu.parity.report import Report
from keras_vit_edu.parity.results import ResultsError
from keras_vit_edu.parity.suite import compare_results, run_suite

__all__ = [
    "ParityError",
    "Report",
    "ResultsError",
    "check",
    "check_saving",
    "compare_results",
    "oracle",
    "output_and_gradients",
    "run_suite",
    "testing",
]
