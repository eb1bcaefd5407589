"""The model card of a zoo's repo: what made the model, how good it is, what it descends from.

Built with huggingface_hub's own classes, so every reader of the Hub's cards understands it. Text
only; no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ws_pipeline.zoo.config import Scalar, Size
from ws_pipeline.zoo.datasets.texts import CHARACTERS, TEXT_SETS, WINDOW_SETS
from ws_pipeline.zoo.grid import ModelPlan

TEST_METRICS = ("accuracy", "loss", "generalization_gap")
TRAIN_METRICS = ("train_accuracy", "epoch")
MLP_HEAD_READING = """
Its head has a hidden layer: transformers' `ViTModel` reads it as its pooler, and `classifier` maps
what the pooler gives to logits. `folder` is where this repo lies, `load_file` is safetensors':

```python
backbone = ViTModel.from_pretrained(folder)
head = load_file(f"{folder}/model.safetensors")
pooled = backbone(pixel_values=images).pooler_output
logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]
```
"""
CONTRASTIVE_NOTE = """
Trained without labels, by two views of the same image. The projection is not published; its place
has a linear classifier that was fitted to the frozen features of training images.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card says beside the model's plan.

    Args:
        base_model: Repo name, without the owner, of the earlier checkpoint of the same run, else of
            the fine-tune's parent; "" for neither.
        metrics: accuracy, train_accuracy, loss, generalization_gap, val_accuracy.
    """

    repo: str
    zoo: str
    owner: str
    licence: str
    library: str
    pipeline_tag: str
    base_model: str
    epoch: int
    num_params: int
    metrics: Mapping[str, float]


def generating_factors(plan: ModelPlan) -> dict[str, Scalar]:
    """List all that made a model as flat scalars; lists of sizes become text like ``32x32``."""
    everything: dict[str, Size] = {
        "dataset": plan.dataset,
        "stage": "pretrain" if plan.parent is None else "finetune",
        "seed": plan.seed,
        "num_epochs": plan.num_epochs,
        "batch_size": plan.batch_size,
        **plan.factors,
        **plan.sizes,
    }
    return {
        name: "x".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in everything.items()
    }


def write_card(plan: ModelPlan, facts: CardFacts) -> str:
    """Write one README.md."""
    values = {**facts.metrics, "epoch": facts.epoch}
    results = [
        EvalResult(
            task_type=facts.pipeline_tag,
            dataset_type=plan.dataset,
            dataset_name=plan.dataset,
            dataset_split=split,
            metric_type=metric,
            metric_value=values[metric],
        )
        for split, metrics in (("test", TEST_METRICS), ("train", TRAIN_METRICS))
        for metric in metrics
    ]
    relation: dict[str, Any] = (
        {"base_model_relation": "finetune"} if facts.base_model else {}
    )  # the Hub knows finetune, adapter, merge and quantized; a later checkpoint is the first
    data = ModelCardData(
        license=facts.licence,
        library_name=facts.library,
        pipeline_tag=facts.pipeline_tag,
        tags=[plan.architecture, "model-zoo", facts.zoo],
        datasets=[plan.dataset],
        base_model=f"{facts.owner}/{facts.base_model}" if facts.base_model else None,
        model_name=facts.repo,
        eval_results=results,
        generating_factors=generating_factors(plan),
        **relation,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_write_body(plan, facts)}"))


def _write_body(plan: ModelPlan, facts: CardFacts) -> str:
    start = "from scratch" if plan.parent is None else f"from {facts.owner}/{plan.parent.name}"
    varied = ", ".join(plan.varied) or "nothing"
    lines = [
        f"# {facts.repo}",
        "",
        (
            f"One of the models of the zoo `{facts.zoo}`: {plan.architecture} with "
            f"{facts.num_params:,} parameters, trained {start} on `{plan.dataset}`, after epoch "
            f"{facts.epoch} of {plan.num_epochs}. Its population varies {varied}."
        ),
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in sorted(facts.metrics.items())),
    ]
    if plan.sizes.get("head") == "mlp":
        lines += MLP_HEAD_READING.rstrip().split("\n")
    if plan.factors["objective"] == "contrastive":
        lines += CONTRASTIVE_NOTE.rstrip().split("\n")
    if plan.dataset in TEXT_SETS or plan.dataset in WINDOW_SETS:
        lines += [
            "",
            (
                "Text is lower case, one id per character: 0 padding, 1 unknown, 2 start of a "
                f"labelled window, then `{CHARACTERS!r}` in this order."
            ),
        ]
    return "\n".join(lines) + "\n"
