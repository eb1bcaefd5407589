import pytest

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.properties import PropertyEvaluation, evaluate_properties
from ws_pipeline_tests.evaluation.population import Population, create_population

FAST = EvaluationConfig(
    targets=("accuracy", "generalization_gap"), probes=("ridge",), held_out=(), num_bootstrap=200
)


@pytest.fixture(scope="session")
def population() -> Population:
    return create_population()


@pytest.fixture(scope="session")
def properties(population: Population) -> PropertyEvaluation:
    return evaluate_properties(
        population.corpus, population.embeddings, population.layers, recipe="tiny", config=FAST
    )
