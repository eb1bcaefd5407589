"""Which tokenised models go into the corpus: the rules that need the weights, or all families.

What it is: rules like those of ``hub.selection`` (accept, or no with a reason code), asked of one
model after the other, the oldest first, each beside those that were kept before it. So a younger
repo never puts out an older one. What it is not: a rule about one repo alone that its listing or
header answers (``hub.selection``: it comes before the download), or about non-finite weights
(``weights.layers`` refuses them while it reads). No I/O.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.hub.lineage import IDENTICAL, SHARED, SIMILAR, Edge, Evidence
from ws_pipeline.tokens.fingerprints import Fingerprint, NearIndex

MAX_NEAR_DISTANCE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPolicy:
    """Part of a recipe: the thresholds of the corpus.

    Attributes:
        near_distance: Up to this distance (``fingerprints.measure_distance``) a model is a copy of
            an older one; 0 takes all but exact copies. The default lies between what is the same
            model (rounded to float16 or bfloat16: up to 0.005 in 99.8 % of models) and what is not
            (two epochs of one training: 0.022; strangers: 0.058), as measured on 771 models by
            benchmarks/near_duplicates.py.
        max_lineage_members: Models of one lineage in the corpus, its oldest; 0 for no bound.
    """

    near_distance: float = 0.01
    max_lineage_members: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.near_distance <= MAX_NEAR_DISTANCE:
            raise ConfigError(
                f"CorpusPolicy.near_distance must be within [0, {MAX_NEAR_DISTANCE}], "
                f"it is {self.near_distance}."
            )
        if self.max_lineage_members < 0:
            raise ConfigError(
                "CorpusPolicy.max_lineage_members must be 0 (no bound) or more, "
                f"it is {self.max_lineage_members}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A tokenised model as rules see it.

    Attributes:
        file_digests: sha256 of all safetensors files of its repo; () where the hub states none.
        shard_sha256: Of its token shard: the tokenised and carried numbers.
        fingerprint: None where ``weights/layers`` has no row of it.
        lineage_root: "" while lineages are not known yet.
    """

    hub_id: str
    repo_id: str
    file_digests: tuple[str, ...]
    shard_sha256: str
    fingerprint: Fingerprint | None
    lineage_root: str = ""


@dataclass(kw_only=True, slots=True)
class Kept:
    """The models that were kept so far, by what the rules look for."""

    policy: CorpusPolicy
    by_files: dict[tuple[str, ...], Member] = field(default_factory=dict)
    by_tensors: dict[str, Member] = field(default_factory=dict)
    by_id: dict[str, Member] = field(default_factory=dict)
    near: NearIndex = field(init=False)
    lineage_sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.near = NearIndex(distance=self.policy.near_distance)

    def add(self, member: Member) -> None:
        """Keep a model."""
        self.by_id[member.hub_id] = member
        self.by_files.setdefault(member.file_digests, member)
        self.by_tensors.setdefault(member.shard_sha256, member)
        if member.fingerprint is not None:
            self.by_tensors.setdefault(member.fingerprint.key, member)
            self.near.add(member.hub_id, member.fingerprint)
        root = member.lineage_root
        self.lineage_sizes[root] = self.lineage_sizes.get(root, 0) + 1


class CorpusVerdict(NamedTuple):
    """A rule's answer; ``reason`` is None exactly when it accepts.

    Attributes:
        twin: hub_id of the kept model that this one repeats; "" otherwise.
    """

    accept: bool
    reason: Reason | None = None
    detail: str = ""
    twin: str = ""


CorpusRule = Callable[[Member, Kept], CorpusVerdict]

ACCEPT = CorpusVerdict(True)


def check_constant(member: Member, kept: Kept) -> CorpusVerdict:  # noqa: ARG001 - a CorpusRule
    """Accept a model in which something varies."""
    if member.fingerprint is None or not member.fingerprint.is_constant:
        return ACCEPT
    return CorpusVerdict(False, Reason.CONSTANT_WEIGHTS, "Every layer holds one number throughout.")


def check_files(member: Member, kept: Kept) -> CorpusVerdict:
    """Accept a model whose files no older one has, of whatever family."""
    twin = kept.by_files.get(member.file_digests) if member.file_digests else None
    if twin is None:
        return ACCEPT
    detail = f"Its weight files are byte for byte those of {twin.repo_id}."
    return CorpusVerdict(False, Reason.DUPLICATE_FILES, detail, twin.hub_id)


def check_tensors(member: Member, kept: Kept) -> CorpusVerdict:
    """Accept a model whose layers no older one has, under any name and in any order."""
    keys = [member.shard_sha256]
    if member.fingerprint is not None:
        keys.append(member.fingerprint.key)
    twin = next((kept.by_tensors[key] for key in keys if key in kept.by_tensors), None)
    if twin is None:
        return ACCEPT
    detail = f"Its layers hold the same numbers as those of {twin.repo_id}."
    return CorpusVerdict(False, Reason.DUPLICATE_TENSORS, detail, twin.hub_id)


def check_near(member: Member, kept: Kept) -> CorpusVerdict:
    """Accept a model that differs from every older one by more than rounding."""
    found = kept.near.find(member.fingerprint) if member.fingerprint is not None else []
    if not found:
        return ACCEPT
    distance, twin = found[0]
    detail = (
        f"All its layers are within {distance:.2g} of those of {kept.by_id[twin].repo_id}; "
        f"up to {kept.policy.near_distance:g} counts as a copy."
    )
    return CorpusVerdict(False, Reason.NEAR_DUPLICATE, detail, twin)


def check_lineage(member: Member, kept: Kept) -> CorpusVerdict:
    """Accept while the lineage has room; its oldest members come first."""
    bound = kept.policy.max_lineage_members
    if not bound or kept.lineage_sizes.get(member.lineage_root, 0) < bound:
        return ACCEPT
    detail = f"Its lineage has {bound} older members in the corpus, as many as it may have."
    return CorpusVerdict(False, Reason.LINEAGE_FULL, detail)


COPY_RULES: tuple[CorpusRule, ...] = (check_constant, check_files, check_tensors, check_near)
"""What needs no lineage: a copy ties its lineage to that of the original."""

LINEAGE_RULES: tuple[CorpusRule, ...] = (check_lineage,)

_EDGES = {
    Reason.DUPLICATE_FILES: (IDENTICAL, Evidence.FILES, True),
    Reason.DUPLICATE_TENSORS: (IDENTICAL, Evidence.TENSORS, True),
    Reason.NEAR_DUPLICATE: (SIMILAR, Evidence.NEAR, False),
}


def judge_members(
    members: Iterable[Member], policy: CorpusPolicy, rules: Sequence[CorpusRule]
) -> dict[str, CorpusVerdict]:
    """Return {hub_id: verdict of the first rule that refuses, or ACCEPT}.

    Args:
        members: Oldest first; later ones change no earlier verdict.
        policy: The thresholds.
        rules: Asked in order.
    """
    kept = Kept(policy=policy)
    verdicts: dict[str, CorpusVerdict] = {}
    for member in members:
        answers = (rule(member, kept) for rule in rules)
        verdict = next((answer for answer in answers if not answer.accept), ACCEPT)
        verdicts[member.hub_id] = verdict
        if verdict.accept:
            kept.add(member)
    return verdicts


def copy_edges(members: Iterable[Member], verdicts: dict[str, CorpusVerdict]) -> Iterator[Edge]:
    """Yield an edge from each copy to the model that it repeats."""
    names = {member.hub_id: member.repo_id for member in members}
    for hub_id, verdict in verdicts.items():
        if verdict.twin and verdict.reason is not None:
            relation, evidence, proven = _EDGES[verdict.reason]
            name = names[verdict.twin]
            yield Edge(hub_id, verdict.twin, name, relation, evidence, proven)


def shared_layer_edges(members: Iterable[Member]) -> Iterator[Edge]:
    """Yield an edge to the oldest holder of each layer that a model shares with older ones."""
    holders: dict[bytes, Member] = {}
    for member in members:
        if member.fingerprint is None:
            continue
        older = {
            holder.hub_id: holder.repo_id
            for key in member.fingerprint.proofs
            if (holder := holders.setdefault(key, member)) is not member
        }
        for hub_id, name in older.items():
            yield Edge(member.hub_id, hub_id, name, SHARED, Evidence.LAYERS, proven=True)
