"""Pages from templates: everything escaped, data as JSON that cannot close its script. No I/O.

Reads the package's own templates and plotly.js, nothing else.
"""

import json
import math
from collections.abc import Mapping


def render_page(template: str, **values: object) -> str:
    """Return a page with plotly.js inlined."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ws_pipeline.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    return environment.get_template(template).render(plotly_js=get_plotlyjs(), **values)


def script_json(value: object) -> str:
    """Return JSON that stands safely inside a script element; NaN becomes null."""
    from markupsafe import Markup

    text = json.dumps(_plain(value), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  (no character of it can leave the element)


def _plain(value: object) -> object:
    """Return a value with non-finite floats as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
