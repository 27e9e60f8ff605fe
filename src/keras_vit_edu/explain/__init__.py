"""Where a model looked, and what spoke for a class."""

from keras_vit_edu.explain import faithfulness
from keras_vit_edu.explain.attention_distance import attention_distance
from keras_vit_edu.explain.explanation import Explanation, explain
from keras_vit_edu.explain.grad_cam import grad_cam
from keras_vit_edu.explain.head_ablation import head_ablation
from keras_vit_edu.explain.inside import Grid, Inside, look_inside
from keras_vit_edu.explain.integrated_gradients import integrated_gradients
from keras_vit_edu.explain.logit_lens import logit_lens
from keras_vit_edu.explain.occlusion import occlusion
from keras_vit_edu.explain.relevance import relevance
from keras_vit_edu.explain.rollout import rollout
from keras_vit_edu.explain.similarity import cosine_similarity, position_similarity, token_similarity
from keras_vit_edu.explain.targets import target_rows
from keras_vit_edu.explain.token_norms import token_norms

__all__ = [
    "Explanation",
    "Grid",
    "Inside",
    "attention_distance",
    "cosine_similarity",
    "explain",
    "faithfulness",
    "grad_cam",
    "head_ablation",
    "integrated_gradients",
    "logit_lens",
    "look_inside",
    "occlusion",
    "position_similarity",
    "relevance",
    "rollout",
    "target_rows",
    "token_norms",
    "token_similarity",
]
