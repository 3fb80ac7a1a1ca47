"""The registered form of a fine-tuned model: MLflow runs this file when it loads it (models from code, no pickle).

`predict` takes a table with the columns of the signature and returns, for each row, what `pmlm predict` writes: label
and probabilities, value, answer and score, or text. The argument is not annotated: MLflow would take the annotation for
a schema, in place of the one that is registered.
"""

import warnings
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

# MLflow advises to annotate `predict` whenever such a class is made, and puts its own filter before any other.
with warnings.catch_warnings(record=True):

    class PredictModel(PythonModel):
        """Predicts with the fine-tuned folder among the model's artifacts."""

        def load_context(self, context: Any) -> None:
            import transformers

            from pipelines.predict.served import Served

            transformers.utils.logging.disable_progress_bar()
            self._served = Served(context.artifacts["checkpoint"])

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
            return self._served.predict(rows, params or {})


mlflow.models.set_model(PredictModel())
