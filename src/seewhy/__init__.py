"""Trains image classifiers fast, then shows why they are right and why they are wrong.

    data = seewhy.load("cifar10")
    run = seewhy.fit(seewhy.RECIPES["davidnet-24"], data)

Names are imported when they are first used, so that `import seewhy` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.comparing.experiment import Experiment as Experiment
    from seewhy.comparing.experiment import read_experiment as read_experiment
    from seewhy.comparing.fan_out import FanOut as FanOut
    from seewhy.comparing.grid import grid as grid
    from seewhy.comparing.statistics import METRICS as METRICS
    from seewhy.comparing.statistics import Metric as Metric
    from seewhy.comparing.statistics import conclusion as conclusion
    from seewhy.comparing.statistics import differences as differences
    from seewhy.comparing.statistics import ranking as ranking
    from seewhy.comparing.trial import Trial as Trial
    from seewhy.data.augment import AUGMENTATIONS as AUGMENTATIONS
    from seewhy.data.augment import Batch as Batch
    from seewhy.data.dataset import Dataset as Dataset
    from seewhy.data.dataset import Split as Split
    from seewhy.data.dataset import class_counts as class_counts
    from seewhy.data.dataset import class_weights as class_weights
    from seewhy.data.description import describe as describe
    from seewhy.data.sources import SOURCES as SOURCES
    from seewhy.data.sources import load as load
    from seewhy.diagnosing.attacks import ATTACKS as ATTACKS
    from seewhy.diagnosing.attacks import Attack as Attack
    from seewhy.diagnosing.attacks import attack as attack
    from seewhy.diagnosing.calibration import Calibration as Calibration
    from seewhy.diagnosing.calibration import Coverage as Coverage
    from seewhy.diagnosing.calibration import TemperatureScaling as TemperatureScaling
    from seewhy.diagnosing.calibration import calibration as calibration
    from seewhy.diagnosing.calibration import coverage as coverage
    from seewhy.diagnosing.calibration import coverage_at as coverage_at
    from seewhy.diagnosing.calibration import fit_temperature as fit_temperature
    from seewhy.diagnosing.calibration import temperature_scaling as temperature_scaling
    from seewhy.diagnosing.comparison import Comparison as Comparison
    from seewhy.diagnosing.comparison import compare as compare
    from seewhy.diagnosing.corruptions import CORRUPTIONS as CORRUPTIONS
    from seewhy.diagnosing.corruptions import corrupt as corrupt
    from seewhy.diagnosing.duplicates import near_duplicates as near_duplicates
    from seewhy.diagnosing.label_errors import confident_joint as confident_joint
    from seewhy.diagnosing.label_errors import label_errors as label_errors
    from seewhy.diagnosing.mistakes import closest_calls as closest_calls
    from seewhy.diagnosing.mistakes import varied_mistakes as varied_mistakes
    from seewhy.diagnosing.mistakes import worst_mistakes as worst_mistakes
    from seewhy.diagnosing.predictions import Predictions as Predictions
    from seewhy.diagnosing.predictions import confusion as confusion
    from seewhy.diagnosing.predictions import predictions as predictions
    from seewhy.diagnosing.robustness import attack_curves as attack_curves
    from seewhy.diagnosing.robustness import attack_strip as attack_strip
    from seewhy.diagnosing.robustness import corruption_curves as corruption_curves
    from seewhy.diagnosing.scores import balanced_accuracy as balanced_accuracy
    from seewhy.diagnosing.scores import class_scores as class_scores
    from seewhy.diagnosing.scores import top_k_accuracy as top_k_accuracy
    from seewhy.diagnosing.scores import worst_confusions as worst_confusions
    from seewhy.diagnosing.slices import features as features
    from seewhy.diagnosing.slices import image_attributes as image_attributes
    from seewhy.diagnosing.slices import weak_slices as weak_slices
    from seewhy.errors import SeewhyError as SeewhyError
    from seewhy.evaluation import evaluate as evaluate
    from seewhy.evaluation import predict as predict
    from seewhy.explaining.backprop import ATTRIBUTIONS as ATTRIBUTIONS
    from seewhy.explaining.cams import CAMS as CAMS
    from seewhy.explaining.capture import Capture as Capture
    from seewhy.explaining.capture import capture as capture
    from seewhy.explaining.explanation import Explanation as Explanation
    from seewhy.explaining.explanation import explain as explain
    from seewhy.explaining.faithfulness import FAITHFULNESS as FAITHFULNESS
    from seewhy.explaining.faithfulness import faithfulness as faithfulness
    from seewhy.explaining.faithfulness import sensitivity as sensitivity
    from seewhy.explaining.faithfulness import summarised as summarised
    from seewhy.explaining.fusion import fuse_layers as fuse_layers
    from seewhy.explaining.layers import find_layers as find_layers
    from seewhy.explaining.localisation import chance as chance
    from seewhy.explaining.localisation import energy_inside as energy_inside
    from seewhy.explaining.localisation import evidence_location as evidence_location
    from seewhy.explaining.localisation import pointing_game as pointing_game
    from seewhy.explaining.localisation import suspicious as suspicious
    from seewhy.explaining.methods import METHODS as METHODS
    from seewhy.explaining.question import Question as Question
    from seewhy.explaining.question import ask as ask
    from seewhy.explaining.randomisation import randomisation_check as randomisation_check
    from seewhy.explaining.resize import resized as resized
    from seewhy.explaining.trust import Verdict as Verdict
    from seewhy.explaining.trust import trust as trust
    from seewhy.figures.calibration import coverage_figure as coverage_figure
    from seewhy.figures.calibration import reliability_figure as reliability_figure
    from seewhy.figures.classes import class_figure as class_figure
    from seewhy.figures.classes import confusion_figure as confusion_figure
    from seewhy.figures.comparison import change_figure as change_figure
    from seewhy.figures.curves import accuracy_figure as accuracy_figure
    from seewhy.figures.curves import curves_figure as curves_figure
    from seewhy.figures.curves import loss_figure as loss_figure
    from seewhy.figures.curves import rate_figure as rate_figure
    from seewhy.figures.experiment import experiment_figure as experiment_figure
    from seewhy.figures.experiment import recipes_figure as recipes_figure
    from seewhy.figures.experiment import seeds_figure as seeds_figure
    from seewhy.figures.explanations import attack_figure as attack_figure
    from seewhy.figures.explanations import explanation_figure as explanation_figure
    from seewhy.figures.explanations import methods_figure as methods_figure
    from seewhy.figures.explanations import overlay as overlay
    from seewhy.figures.lr_finder import lr_figure as lr_figure
    from seewhy.figures.robustness import attack_curves_figure as attack_curves_figure
    from seewhy.figures.robustness import corruption_figure as corruption_figure
    from seewhy.figures.robustness import corruption_samples_figure as corruption_samples_figure
    from seewhy.figures.slices import evidence_figure as evidence_figure
    from seewhy.figures.slices import slices_figure as slices_figure
    from seewhy.figures.trust import trust_figure as trust_figure
    from seewhy.fitting import fit as fit
    from seewhy.fitting import resume as resume
    from seewhy.models.normalise import Normalise as Normalise
    from seewhy.models.summary import summary as summary
    from seewhy.models.table import MODELS as MODELS
    from seewhy.models.table import build as build
    from seewhy.models.tta import TTA as TTA
    from seewhy.reporting.diagnosis import Diagnosis as Diagnosis
    from seewhy.reporting.diagnosis import diagnose as diagnose
    from seewhy.reporting.experiment_page import report_experiment as report_experiment
    from seewhy.reporting.page import report as report
    from seewhy.reporting.section import Section as Section
    from seewhy.reporting.sections.table import SECTIONS as SECTIONS
    from seewhy.reporting.study import Study as Study
    from seewhy.reporting.study import study as study
    from seewhy.run import Run as Run
    from seewhy.run import open_run as open_run
    from seewhy.train.lr_finder import SUGGESTIONS as SUGGESTIONS
    from seewhy.train.lr_finder import RangeTest as RangeTest
    from seewhy.train.lr_finder import range_test as range_test
    from seewhy.train.optimizers import OPTIMIZERS as OPTIMIZERS
    from seewhy.train.optimizers import parameter_groups as parameter_groups
    from seewhy.train.recipe import Recipe as Recipe
    from seewhy.train.recipes import RECIPES as RECIPES
    from seewhy.train.recipes import read_recipe as read_recipe
    from seewhy.train.schedules import SCHEDULES as SCHEDULES
    from seewhy.trials import compare_recipes as compare_recipes
    from seewhy.trials import resume_comparison as resume_comparison
    from seewhy.tuning import find_lr as find_lr
    from seewhy.tuning import images_per_second as images_per_second

__version__ = "0.1.0"

_HOMES = {
    "ATTACKS": "seewhy.diagnosing.attacks",
    "ATTRIBUTIONS": "seewhy.explaining.backprop",
    "AUGMENTATIONS": "seewhy.data.augment",
    "Attack": "seewhy.diagnosing.attacks",
    "Batch": "seewhy.data.augment",
    "CAMS": "seewhy.explaining.cams",
    "CORRUPTIONS": "seewhy.diagnosing.corruptions",
    "Calibration": "seewhy.diagnosing.calibration",
    "Capture": "seewhy.explaining.capture",
    "Comparison": "seewhy.diagnosing.comparison",
    "Coverage": "seewhy.diagnosing.calibration",
    "Dataset": "seewhy.data.dataset",
    "Diagnosis": "seewhy.reporting.diagnosis",
    "Experiment": "seewhy.comparing.experiment",
    "Explanation": "seewhy.explaining.explanation",
    "FAITHFULNESS": "seewhy.explaining.faithfulness",
    "FanOut": "seewhy.comparing.fan_out",
    "METHODS": "seewhy.explaining.methods",
    "METRICS": "seewhy.comparing.statistics",
    "MODELS": "seewhy.models.table",
    "Metric": "seewhy.comparing.statistics",
    "Normalise": "seewhy.models.normalise",
    "OPTIMIZERS": "seewhy.train.optimizers",
    "Predictions": "seewhy.diagnosing.predictions",
    "Question": "seewhy.explaining.question",
    "RECIPES": "seewhy.train.recipes",
    "RangeTest": "seewhy.train.lr_finder",
    "Recipe": "seewhy.train.recipe",
    "Run": "seewhy.run",
    "SCHEDULES": "seewhy.train.schedules",
    "SECTIONS": "seewhy.reporting.sections.table",
    "SOURCES": "seewhy.data.sources",
    "SUGGESTIONS": "seewhy.train.lr_finder",
    "Section": "seewhy.reporting.section",
    "SeewhyError": "seewhy.errors",
    "Split": "seewhy.data.dataset",
    "Study": "seewhy.reporting.study",
    "TTA": "seewhy.models.tta",
    "TemperatureScaling": "seewhy.diagnosing.calibration",
    "Trial": "seewhy.comparing.trial",
    "Verdict": "seewhy.explaining.trust",
    "accuracy_figure": "seewhy.figures.curves",
    "ask": "seewhy.explaining.question",
    "attack": "seewhy.diagnosing.attacks",
    "attack_curves": "seewhy.diagnosing.robustness",
    "attack_curves_figure": "seewhy.figures.robustness",
    "attack_figure": "seewhy.figures.explanations",
    "attack_strip": "seewhy.diagnosing.robustness",
    "balanced_accuracy": "seewhy.diagnosing.scores",
    "build": "seewhy.models.table",
    "calibration": "seewhy.diagnosing.calibration",
    "capture": "seewhy.explaining.capture",
    "chance": "seewhy.explaining.localisation",
    "change_figure": "seewhy.figures.comparison",
    "class_counts": "seewhy.data.dataset",
    "class_figure": "seewhy.figures.classes",
    "class_scores": "seewhy.diagnosing.scores",
    "class_weights": "seewhy.data.dataset",
    "closest_calls": "seewhy.diagnosing.mistakes",
    "compare": "seewhy.diagnosing.comparison",
    "compare_recipes": "seewhy.trials",
    "conclusion": "seewhy.comparing.statistics",
    "confident_joint": "seewhy.diagnosing.label_errors",
    "confusion": "seewhy.diagnosing.predictions",
    "confusion_figure": "seewhy.figures.classes",
    "corrupt": "seewhy.diagnosing.corruptions",
    "corruption_curves": "seewhy.diagnosing.robustness",
    "corruption_figure": "seewhy.figures.robustness",
    "corruption_samples_figure": "seewhy.figures.robustness",
    "coverage": "seewhy.diagnosing.calibration",
    "coverage_at": "seewhy.diagnosing.calibration",
    "coverage_figure": "seewhy.figures.calibration",
    "curves_figure": "seewhy.figures.curves",
    "describe": "seewhy.data.description",
    "diagnose": "seewhy.reporting.diagnosis",
    "differences": "seewhy.comparing.statistics",
    "energy_inside": "seewhy.explaining.localisation",
    "evaluate": "seewhy.evaluation",
    "evidence_figure": "seewhy.figures.slices",
    "evidence_location": "seewhy.explaining.localisation",
    "experiment_figure": "seewhy.figures.experiment",
    "explain": "seewhy.explaining.explanation",
    "explanation_figure": "seewhy.figures.explanations",
    "faithfulness": "seewhy.explaining.faithfulness",
    "features": "seewhy.diagnosing.slices",
    "find_layers": "seewhy.explaining.layers",
    "find_lr": "seewhy.tuning",
    "fit": "seewhy.fitting",
    "fit_temperature": "seewhy.diagnosing.calibration",
    "fuse_layers": "seewhy.explaining.fusion",
    "grid": "seewhy.comparing.grid",
    "image_attributes": "seewhy.diagnosing.slices",
    "images_per_second": "seewhy.tuning",
    "label_errors": "seewhy.diagnosing.label_errors",
    "load": "seewhy.data.sources",
    "loss_figure": "seewhy.figures.curves",
    "lr_figure": "seewhy.figures.lr_finder",
    "methods_figure": "seewhy.figures.explanations",
    "near_duplicates": "seewhy.diagnosing.duplicates",
    "open_run": "seewhy.run",
    "overlay": "seewhy.figures.explanations",
    "parameter_groups": "seewhy.train.optimizers",
    "pointing_game": "seewhy.explaining.localisation",
    "predict": "seewhy.evaluation",
    "predictions": "seewhy.diagnosing.predictions",
    "randomisation_check": "seewhy.explaining.randomisation",
    "range_test": "seewhy.train.lr_finder",
    "ranking": "seewhy.comparing.statistics",
    "rate_figure": "seewhy.figures.curves",
    "read_experiment": "seewhy.comparing.experiment",
    "read_recipe": "seewhy.train.recipes",
    "recipes_figure": "seewhy.figures.experiment",
    "reliability_figure": "seewhy.figures.calibration",
    "report": "seewhy.reporting.page",
    "report_experiment": "seewhy.reporting.experiment_page",
    "resized": "seewhy.explaining.resize",
    "resume": "seewhy.fitting",
    "resume_comparison": "seewhy.trials",
    "seeds_figure": "seewhy.figures.experiment",
    "sensitivity": "seewhy.explaining.faithfulness",
    "slices_figure": "seewhy.figures.slices",
    "study": "seewhy.reporting.study",
    "summarised": "seewhy.explaining.faithfulness",
    "summary": "seewhy.models.summary",
    "suspicious": "seewhy.explaining.localisation",
    "temperature_scaling": "seewhy.diagnosing.calibration",
    "top_k_accuracy": "seewhy.diagnosing.scores",
    "trust": "seewhy.explaining.trust",
    "trust_figure": "seewhy.figures.trust",
    "varied_mistakes": "seewhy.diagnosing.mistakes",
    "weak_slices": "seewhy.diagnosing.slices",
    "worst_confusions": "seewhy.diagnosing.scores",
    "worst_mistakes": "seewhy.diagnosing.mistakes",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
