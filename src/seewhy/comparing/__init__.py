"""Trainings side by side: recipes that differ, their runs over several seeds, and which differences are real."""
