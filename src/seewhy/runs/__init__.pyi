from .lr_search import find_lr as find_lr
from .lr_search import images_per_second as images_per_second
from .prediction import evaluate as evaluate
from .prediction import predict as predict
from .run import Run as Run
from .run import open_run as open_run
from .training import fit as fit
from .training import resume as resume
