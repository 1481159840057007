"""The temperature explorer of the Welcome page: charts that compute in the reader's browser.

The formulas below are Vega expressions. The browser evaluates them in float64 for all
temperatures of the slider at once, whenever a student's logit moves; the loss is the textbook
formula, which rounding puts off by about 1e-16 times the temperature squared, 1e-10 at the
last finite temperature. At infinity the numbers are the limits.
"""

import base64
import io
import json
import math
from pathlib import Path
from string import Template

import altair as alt
import matplotlib.pyplot as plt
import vl_convert
from IPython.display import HTML

from kd_notes._book.plotting import TEMPERATURES, draw_explorer, temperature_name, use_book_style

TEACHER = [7, 5, 2, 1, 0]
STUDENT = [4, 6, 1, 2, 0]
CLASSES = [1, 2, 3, 4, 5]
AT_FIRST = TEMPERATURES.index(4)

INK = "currentColor"  # the theme's color of text, light or dark
CYCLE = plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
COLORS = alt.Scale(domain=CLASSES, range=[CYCLE[k] for k in CLASSES])
AT_INFINITY = 3.7  # where the axis of log10(temperature) has it

STILL_ALT = (
    "Three charts at temperature 4. The teacher prefers class 1, the student class 2; the"
    " gradient lowers class 2 and raises class 1. The loss times the temperature squared runs"
    " from 0 at low temperatures to its limit, inside a corridor that closes onto it."
)


def vega_list(values):
    return "[" + ", ".join("1/0" if value == math.inf else str(value) for value in values) + "]"


def explored(chart):
    """Give a chart its data: a row for each temperature and class, as the sliders stand."""
    sliders = [alt.param(name="position", value=AT_FIRST, bind=slider("position"))]
    for k, logit in zip(CLASSES, STUDENT, strict=True):
        sliders.append(alt.param(name=f"student_{k}", value=logit, bind=slider(f"student-{k}")))
    chart = chart.properties(data=alt.Data(values=[{"class": CLASSES, "z_t": TEACHER}]))
    for step in (each_temperature, probabilities, losses, gradients, sandwich):
        chart = step(chart)
    return chart.add_params(*sliders)


def slider(name):
    return alt.BindDirect(element=f"#explorer-{name}", event="input")


def each_temperature(chart):
    return (
        chart.transform_calculate(
            temperature=vega_list(TEMPERATURES),
            place=f"sequence({len(TEMPERATURES)})",
            z_s="[" + ", ".join(f"toNumber(student_{k})" for k in CLASSES) + "]",
        )
        .transform_flatten(["temperature", "place"], as_=["tau", "place"])
        .transform_flatten(["class", "z_s", "z_t"])
    )


def probabilities(chart):
    return (
        chart.transform_calculate(
            exp_s="exp(datum.z_s / datum.tau)",
            exp_t="exp(datum.z_t / datum.tau)",
        )
        .transform_joinaggregate(sum_s="sum(exp_s)", sum_t="sum(exp_t)", groupby=["place"])
        .transform_calculate(
            p_s="datum.exp_s / datum.sum_s",
            p_t="datum.exp_t / datum.sum_t",
        )
    )


def losses(chart):
    """Return Eq. 8 times the temperature squared as `kd`, and Eq. 12 as `limit`."""
    return (
        chart.transform_calculate(
            D="datum.z_s - datum.z_t",
            log_p_s="datum.z_s / datum.tau - log(datum.sum_s)",
            log_p_t="datum.z_t / datum.tau - log(datum.sum_t)",
        )
        .transform_calculate(kl_term="datum.p_t * (datum.log_p_t - datum.log_p_s)")
        .transform_joinaggregate(
            kl="sum(kl_term)",
            mean_D="mean(D)",
            variance="variancep(D)",
            groupby=["place"],
        )
        .transform_calculate(limit="datum.variance / 2")
        .transform_calculate(
            kd="isFinite(datum.tau) ? pow(datum.tau, 2) * datum.kl : datum.limit",
        )
    )


def gradients(chart):
    """Return Eq. 10 times the temperature squared, and Eq. 11 as its limit."""
    return chart.transform_calculate(
        gradient_limit=f"(datum.D - datum.mean_D) / {len(CLASSES)}",
    ).transform_calculate(
        gradient="isFinite(datum.tau) ? datum.tau * (datum.p_s - datum.p_t)"
        " : datum.gradient_limit",
    )


def sandwich(chart):
    """Return the two sides of Proposition 4, the upper one also cut off for the picture."""
    ends = {f"{end}_{x}": f"{end}({x})" for end in ("min", "max") for x in ("z_s", "z_t", "D")}
    return (
        chart.transform_joinaggregate(**ends, groupby=["place"])
        .transform_calculate(
            R="max(datum.max_z_s - datum.min_z_s, datum.max_z_t - datum.min_z_t)",
            top="max(pow(datum.max_D - datum.min_D, 2) / 8 * 1.15, 0.1)",
        )
        .transform_calculate(
            low="exp(-datum.R / datum.tau) * datum.limit",
            high="exp(datum.R / datum.tau) * datum.limit",
        )
        .transform_calculate(high_in_view="min(datum.high, datum.top)")
    )


def at_the_slider(chart):
    return chart.transform_filter("datum.place == position")


def class_axis():
    narrow_gaps = alt.Scale(paddingInner=0.12, paddingOuter=0.06)
    return alt.X("class:O", axis=alt.Axis(labelAngle=0), scale=narrow_gaps)


def class_color():
    return alt.Color("class:O", scale=COLORS, legend=None)


def probability_chart():
    bars = alt.Chart().encode(
        class_axis(),
        alt.XOffset("network:O", sort=["teacher", "student"]),
        alt.Y("p:Q", title="probability", scale=alt.Scale(domain=[0, 1])),
    )
    faint_and_full = alt.Scale(domain=["teacher", "student"], range=[0.3, 1])
    layers = alt.layer(
        bars.mark_bar(stroke=INK).encode(
            class_color(),
            alt.FillOpacity("network:O", scale=faint_and_full, legend=None),
        ),
        bars.mark_text(dy=-6, fontSize=9).encode(text=alt.Text("p:Q", format=".2f")),
    )
    return (
        at_the_slider(explored(layers))
        .transform_calculate(teacher="datum.p_t", student="datum.p_s")
        .transform_fold(["teacher", "student"], as_=["network", "p"])
        .properties(
            height=160,
            description="Bars: the probabilities that teacher and student give each class.",
        )
    )


def gradient_chart():
    chart = alt.Chart().encode(class_axis())
    gradient = alt.Y("gradient:Q", title="τ (pˢ − pᵗ)", axis=alt.Axis(minExtent=40))
    layers = alt.layer(
        chart.mark_bar(stroke=INK).encode(gradient, class_color()),
        chart.mark_tick(color=INK, thickness=3, opacity=1).encode(alt.Y("gradient_limit:Q")),
        chart.mark_text().encode(text=alt.Text("gradient:Q", format=".3f"), y=alt.value(-8)),
    )
    return at_the_slider(explored(layers)).properties(
        height=190,
        description="Bars: the gradient of the loss times the temperature squared, with respect to"
        " each logit of the student, and a mark at the limit of each.",
    )


def loss_chart():
    ticks = alt.Axis(
        values=[-1, 0, 1, 2, 3, AT_INFINITY],
        labelExpr=f"datum.value == {AT_INFINITY} ? '∞' : pow(10, datum.value)",
        title="temperature τ",
    )
    across = alt.X("across:Q", axis=ticks, scale=alt.Scale(domain=[-1, 3.8]))
    height = alt.Y("kd:Q", title="τ² KD", axis=alt.Axis(minExtent=40), scale=alt.Scale(nice=False))
    chart = alt.Chart().encode(across)
    here = at_the_slider(chart)
    layers = alt.layer(
        chart.mark_area(color=INK, opacity=0.2).encode(alt.Y("low:Q"), alt.Y2("high_in_view:Q")),
        chart.mark_line(color=INK, strokeWidth=1, strokeDash=[4, 4]).encode(alt.Y("limit:Q")),
        chart.mark_line(color=CYCLE[0]).encode(height),
        here.mark_rule(color=INK),
        here.mark_point(color=INK, fill=CYCLE[0], opacity=1, size=80).encode(height),
        here.mark_text(align="left", fontSize=12, lineBreak="|", lineHeight=16).encode(
            x=alt.value(0), y=alt.value(-26), text="numbers:N"
        ),
    )
    return (
        explored(layers)
        .transform_filter("datum.class == 1")
        .transform_calculate(
            across=f"isFinite(datum.tau) ? log(datum.tau) / LN10 : {AT_INFINITY}",
            numbers="format(datum.low, '.4f') + ' ≤ ' + format(datum.kd, '.4f') + ' ≤ '"
            " + format(datum.high, datum.high < 1e4 ? '.4f' : '.1e')"
            " + '|the limit: ' + format(datum.limit, '.4f')",
        )
        .properties(
            height=170,
            description="Curve: the loss times the temperature squared, at all temperatures,"
            " between the two sides of Proposition 4, which close onto its limit.",
        )
    )


def look(chart):
    chart = chart.properties(width="container", background="transparent")
    return chart.configure(
        font="sans-serif",
        axis=alt.AxisConfig(
            labelColor=INK,
            titleColor=INK,
            domainColor=INK,
            tickColor=INK,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            grid=False,
        ),
        text=alt.MarkConfig(color=INK, fontSize=11),
        view=alt.ViewConfig(stroke=None),
    ).to_dict()


def still_picture():
    """Return the explorer as it starts, drawn from the numbers of `kd_notes`, for `src`."""
    use_book_style()
    figure = draw_explorer(STUDENT, TEACHER, TEMPERATURES[AT_FIRST])
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def slider_row(k, logit):
    name = f"explorer-student-{k}"
    return (
        f'<div class="explorer-slider"><label for="{name}">class {k}</label>'
        f'<input type="range" id="{name}" min="-2" max="10" step="0.1" value="{logit}">'
        f'<output for="{name}"></output></div>'
    )


def explorer():
    """Return the explorer as HTML that asks nobody for anything."""
    charts = {
        "probabilities": probability_chart(),
        "gradients": gradient_chart(),
        "losses": loss_chart(),
    }
    page = Template(Path(__file__).with_suffix(".html").read_text()).substitute(
        still_picture=still_picture(),
        still_alt=STILL_ALT,
        last=len(TEMPERATURES) - 1,
        at_first=AT_FIRST,
        teacher=", ".join(map(str, TEACHER)),
        student_sliders="\n".join(map(slider_row, CLASSES, STUDENT)),
        bundle=vl_convert.javascript_bundle(),
        temperatures=json.dumps([temperature_name(x) for x in TEMPERATURES]),
        charts=json.dumps({name: look(chart) for name, chart in charts.items()}),
    )
    return HTML(page)
