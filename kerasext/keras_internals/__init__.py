"""What kerasext uses of Keras that Keras does not document.

All of it is the same in Keras 3.12 to 3.15, which the tests run with. A later version that differs
is minded here. `docs/keras.md` says what each of it is for, and shows it.
"""

from kerasext.keras_internals import saving as saving
from kerasext.keras_internals.dataset_order import (
    shuffles_its_file_paths as shuffles_its_file_paths,
)
from kerasext.keras_internals.hidden_steps import hides_next as hides_next
from kerasext.keras_internals.model_check import check_model as check_model
from kerasext.keras_internals.model_inputs import (
    columns_as_inputs as columns_as_inputs,
    fixed_batch_size as fixed_batch_size,
    is_frame as is_frame,
    random_states as random_states,
    stateful_layers as stateful_layers,
    takes_dict as takes_dict,
)
from kerasext.keras_internals.own_methods import (
    PREDICTION_METHODS as PREDICTION_METHODS,
    cooperative as cooperative,
    implementation as implementation,
    is_cooperative as is_cooperative,
    listed as listed,
    own_methods as own_methods,
)
from kerasext.keras_internals.predict import jax_state as jax_state, predict_loop as predict_loop
from kerasext.keras_internals.predict.jax_state import weights_kept as weights_kept
from kerasext.keras_internals.predict.job_step import (
    JobStep as JobStep,
    job_step as job_step,
    step_of_arrays as step_of_arrays,
)
from kerasext.keras_internals.predict.out_of_memory import is_out_of_memory as is_out_of_memory
from kerasext.keras_internals.predict.predict_functions import (
    PredictFunctions as PredictFunctions,
    predicting_alone as predicting_alone,
)
from kerasext.keras_internals.predict.predict_tap import (
    StepListener as StepListener,
    StepTaps as StepTaps,
)
from kerasext.keras_internals.predict.slices_adapter import SlicesAdapter as SlicesAdapter
from kerasext.keras_internals.predict.step_batches import (
    is_text as is_text,
    without_keys as without_keys,
)
from kerasext.keras_internals.predict.xla import is_for_xla as is_for_xla
from kerasext.keras_internals.private_classes import (
    Functional as Functional,
    graph_of as graph_of,
    has_automatic_name as has_automatic_name,
    made_by as made_by,
)
from kerasext.keras_internals.shared_state import sharing_state as sharing_state
from kerasext.keras_internals.structures import (
    filled as filled,
    leaves_with_path as leaves_with_path,
    numbered as numbered,
)
from kerasext.keras_internals.tensors import to_numpy as to_numpy
