"""The cases that the tests of diagnosis and of reporting share."""

from diagnosis_cases import diagnosed_case, make_case, same_fixture

__all__ = ["diagnosed_case", "make_case", "same_fixture"]
