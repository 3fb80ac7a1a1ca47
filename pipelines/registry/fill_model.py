"""The registered form of a checkpoint: MLflow runs this file when it loads the model (models from code, no pickle).

`predict` takes texts with "[MASK]" in them, a list or one column, and returns, for each, the text filled and the
likeliest tokens of every mask. The argument is not annotated: MLflow would take the annotation for a schema, in place
of the one that is registered.
"""

import warnings
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

# MLflow advises to annotate `predict` whenever such a class is made, and puts its own filter before any other.
with warnings.catch_warnings(record=True):

    class FillModel(PythonModel):
        """Fills masks with the checkpoint among the model's artifacts."""

        def load_context(self, context: Any) -> None:
            import transformers

            from pmlm_core.model.filling import Filler

            transformers.utils.logging.disable_progress_bar()
            self._filler = Filler(context.artifacts["checkpoint"])

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            texts = model_input.iloc[:, 0] if hasattr(model_input, "iloc") else model_input
            filled = self._filler.fill([str(text) for text in texts], top_k=int((params or {}).get("top_k", 5)))
            return [
                {
                    "text": one.text,
                    "filled": one.filled,
                    "masks": [[{"token": c.text, "probability": c.probability} for c in mask] for mask in one.masks],
                }
                for one in filled
            ]


mlflow.models.set_model(FillModel())
