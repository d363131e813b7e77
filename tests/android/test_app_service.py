"""The service of an app compiles against the published names, and answers as a phone expects."""

import base64

import jvm
import pytest

from odp_taskbuilder.android import app
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat

FEATURES = (ExampleFeature("x", "float32", (28, 28)), ExampleFeature("y", "int64", (1,)))
POPULATIONS = ["digits", "class", "Digits", "7_$days"]
ERROR_TRAINING_EXAMPLES, ERROR_EXECUTE = "error 1", "error 2"


def token(position):
    return base64.b64encode(position.to_bytes(4, "big")).decode()


@pytest.mark.parametrize("language", ["java", "kotlin"])
@pytest.mark.parametrize("api", ["released", "guide"])
def test_a_service_hands_over_examples_and_schedules_what_it_is_asked_to(tmp_path, language, api):
    formats = [ExampleFormat("", population, None, FEATURES) for population in POPULATIONS]
    options = app.AppOptions(
        package="com.example.app",
        service="Feeding",
        federated_compute_url="https://example.com",
        language=language,
        api=api,
    )
    classes = jvm.compile_app(tmp_path, app.app_files(formats, options), language, api)
    keys = [f"digits/{number}" for number in range(3)] + ["class/0", "other"]
    answers = {
        "train digits -": f"digits/0={token(1)} digits/1={token(2)} digits/2={token(3)}",
        # It goes on behind the last example that the phone trained on, and begins anew behind the last of all.
        f"train digits {token(1)}": f"digits/1={token(2)} digits/2={token(3)}",
        f"train digits {token(3)}": f"digits/0={token(1)} digits/1={token(2)} digits/2={token(3)}",
        # Tokens that it has not made.
        f"train digits {base64.b64encode(b'12345').decode()}": f"digits/0={token(1)} digits/1={token(2)} digits/2={token(3)}",
        f"train digits {token(2**32 - 1)}": f"digits/0={token(1)} digits/1={token(2)} digits/2={token(3)}",
        "train class -": f"class/0={token(1)}",
        "train Digits -": "",
        "train nobody -": "",
        "execute schedule digits": "executed; schedule digits 2 PT24H",
        "execute cancel 7_$days": "executed; cancel 7_$days",
        "execute cancel -": "executed; " + "; ".join(f"cancel {population}" for population in POPULATIONS),
        "download": " ".join(sorted(keys)) + "; " + "; ".join(f"schedule {population} 2 PT24H" for population in POPULATIONS),
    }
    if api == "released":
        # The guide's callbacks have no word for an error.
        answers |= {"execute schedule nobody": ERROR_EXECUTE, "execute sing digits": ERROR_EXECUTE}
    assert dict(zip(answers, jvm.ask_worker(classes, "com.example.app.Feeding", keys, answers))) == answers
