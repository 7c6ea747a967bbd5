"""What a prediction file holds of one head."""

from __future__ import annotations

from collections.abc import Mapping

from kerasext.storage import ClassNames, DenseOutput, PredictionFile, RaggedOutput


def path_of(head: str, name: str) -> str:
    """The name in the file of an output of a head; `""` is the head of a model with one."""
    return f"{head}/{name}" if head else name


def labels_and_confidence(
    predictions: PredictionFile, head: str
) -> tuple[DenseOutput | RaggedOutput, DenseOutput | RaggedOutput]:
    """The two outputs that figures are made from.

    Raises:
        TypeError: If labels are not integers or confidences not floats.
        ValueError: If the file has no such outputs, or no rows, or the two differ in shape.
    """
    names = path_of(head, "labels"), path_of(head, "confidence")
    for name in names:
        if name not in predictions:
            heads = sorted(other[:-7] for other in predictions if other.endswith("/labels"))
            remedy = f"pass `head`, one of {heads}" if heads else "predict with one of the mixins"
            raise ValueError(
                f"The file must have the output {name!r}; {remedy}. "
                f"Received: head={head!r}, and a file with {sorted(predictions)}"
            )
    labels, confidence = (predictions[name] for name in names)
    if labels.dtype.kind not in "biu" or confidence.dtype.kind != "f":
        raise TypeError(
            "Labels must be integers, and confidence floats, as the mixins predict them. "
            f"Received: {labels.name!r} of dtype {labels.dtype}, {confidence.name!r} of dtype "
            f"{confidence.dtype}"
        )
    if labels.shape != confidence.shape:
        raise ValueError(
            "Labels and confidence must have the same shape. "
            f"Received: {labels.shape} and {confidence.shape}"
        )
    if 0 in labels.shape:
        raise ValueError(
            "The file must have at least one label; predict some rows. "
            f"Received: {str(predictions.path)!r} with {labels.name!r} of shape {labels.shape}"
        )
    return labels, confidence


def class_names(predictions: PredictionFile, head: str) -> list[str] | None:
    """Names of the classes, `None` if the file has none."""
    names = predictions.class_names
    if isinstance(names, Mapping):
        names = names.get(head)
    elif head:
        names = None
    assert names is None or isinstance(names, ClassNames)
    return None if names is None else [str(name) for name in names]


def number_of_classes(
    predictions: PredictionFile,
    head: str,
    names: list[str] | None,
    labels: DenseOutput | RaggedOutput,
) -> int | None:
    """Number of classes, `None` if only the labels themselves show it."""
    if names is not None:
        return len(names)
    probabilities = predictions.get(path_of(head, "probabilities"))
    if probabilities is not None and probabilities.shape[:-1] == labels.shape:
        return probabilities.shape[-1]
    if predictions.prediction_metadata.get("task") == "binary":
        return 2
    return None
