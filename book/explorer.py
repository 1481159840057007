"""The first things on the Welcome page: what happens in distillation, to drag and as a picture.

Both show one example, a teacher that takes a cat for a cat and a student that takes it for a dog.
The picture and what is said below it are made here, from the numbers of `kd_notes`; so are the
controls of the explorer, which draws and computes in the reader's browser (`_static/explorer.js`).
"""

import json
from string import Template

from IPython.display import HTML

from kd_notes import kd_grad, kd_loss, softmax

CLASSES = ["cat", "dog", "fox", "car", "bus"]
TEACHER = [5.03, 4, 2.2, 0, -1]
STUDENT = [2, 6, 1, 1, 0]
TEMPERATURE = 4

PICTURE = Template("""\
<figure class="distillation">
<svg viewBox="0 0 400 256" role="img" aria-labelledby="distillation-says">
  <defs><marker id="arrow-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"
    markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">
    <path d="M0,0 8,4 0,8z" fill="context-stroke"/></marker></defs>
  <g class="cat"><path d="M13,108 15,88 27,97 Q34,94 41,97 L53,88 55,108 Q56,130 34,133
    Q12,130 13,108z"/><path d="M26,110v5 M42,110v5 M30,122q4,3 8,0 M4,116l12,2 M4,126l12,-2
    M64,116l-12,2 M64,126l-12,-2"/></g>
  <g class="arrow"><path d="M58,94 80,74"/><path d="M58,138 94,168"/><path d="M168,58H196"/>
    <path d="M153,188H196"/><path d="M324,58 H361 V92"/><path d="M324,188 H355 V156"/></g>
  <rect class="teacher" x="84" y="18" width="82" height="80" rx="6"/>
  <text class="name" x="125" y="63">teacher</text>
  <rect class="student" x="99" y="162" width="52" height="52" rx="6"/>
  <text class="name" x="125" y="192">student</text>
  <text x="204" y="12">pᵗ = softmax(zᵗ/τ), τ = $tau</text>$teacher_bars
  <text x="204" y="142">pˢ = softmax(zˢ/τ)</text>$student_bars
  <rect class="loss" x="330" y="96" width="64" height="56" rx="6"/>
  <text class="middle" x="362" y="119">τ² KL</text>
  <text class="middle" x="362" y="139">= $loss</text>
  <path class="arrow gradient" d="M374,154 V236 H125 V218"/>
  <text x="134" y="252">gradient τ (pˢ − pᵗ): cat $cat_gradient, dog +$dog_gradient</text>
</svg>
<figcaption id="distillation-says">At temperature 1 the teacher gives <i>cat</i> the probability
$cat and <i>dog</i> $dog; the bars are at temperature $tau. The gradient goes to the student alone;
a step against it raises the logit of <i>cat</i> and lowers that of <i>dog</i>.</figcaption>
</figure>""")

BAR = """
  <text x="204" y="{y}">{name}</text>
  <rect class="{network}" x="230" y="{top}" width="{width:.1f}" height="11"/>
  <text x="{end:.1f}" y="{y}">{p:.2f}</text>"""

EXPLORER = Template("""\
<div class="explorer" id="explorer" role="group" aria-label="Explorer" hidden
  data-example='$example'>
  <div class="explorer-temperature"><label for="explorer-tau">Temperature</label>
    <input type="range" id="explorer-tau"><output for="explorer-tau"></output></div>
  <div class="explorer-panels">
    <div class="explorer-names" aria-hidden="true">$names</div>
    <div class="explorer-logits"><p><strong>Logits</strong><br>drag the bars</p>
      <svg role="group"></svg></div>
    <div class="explorer-names again" aria-hidden="true">$names</div>
    <div class="explorer-probabilities"><p><strong>Probabilities</strong><br>softmax(z/τ)</p>
      <svg role="img"></svg></div>
    <div class="explorer-gradient"><p><strong>Gradient</strong><br>with respect to zˢ</p>
      <svg role="img"></svg></div></div>
  <p><span class="key teacher"></span> teacher <span class="key student"></span> student
    <span class="key at-limit"></span> limit at τ = ∞</p>
  <div class="explorer-buttons">
    <button name="agree">They agree</button>
    <button name="shifted">Shifted by 3</button>
    <button name="sure">A sure teacher</button>
    <span>All student’s logits
      <button name="lower" aria-label="Lower all of the student’s logits by 1">−1</button>
      <button name="raise" aria-label="Raise all of the student’s logits by 1">+1</button></span>
    <button name="reset">Reset</button></div>
  <div class="explorer-loss"><div>
    <label>Divergence <select><option value="forward_kl">forward KL</option>
      <option value="reverse_kl">reverse KL</option>
      <option value="jensen_shannon">Jensen–Shannon, β = 0.5</option></select></label>
    <label><input type="checkbox" role="switch"> times τ²</label>
    <p><span class="key loss"></span> <span class="symbol"></span> = <b class="shown-loss"></b><br>
      <span class="key limit"></span> logit matching, <span class="limit-symbol"></span>
      = <b class="shown-limit"></b><br>
      <span class="bounds"><span class="key bounds"></span> between <b class="shown-low"></b>
      and <b class="shown-high"></b></span></p></div>
    <div class="explorer-curve"><svg role="group" aria-label="The loss at all temperatures"></svg>
    </div></div>
</div>
<noscript><p>The explorer, which stands here, needs JavaScript.</p></noscript>
<script src="../_static/explorer.js"></script>""")


def bars(network, probabilities, top):
    """Return a bar for each class, with its name and its probability."""
    return "".join(
        BAR.format(
            name=name,
            network=network,
            p=p,
            top=top + 16 * row,
            y=top + 16 * row + 10,
            width=130 * p,
            end=234 + 130 * p,
        )
        for row, (name, p) in enumerate(zip(CLASSES, probabilities, strict=True))
    )


def picture():
    """Return what happens in distillation as HTML: a drawing, and what it shows."""
    p_t, p_s = softmax(TEACHER, TEMPERATURE), softmax(STUDENT, TEMPERATURE)
    gradient = kd_grad(STUDENT, TEACHER, TEMPERATURE)
    sharp = softmax(TEACHER)
    values = {
        "loss": kd_loss(STUDENT, TEACHER, TEMPERATURE),
        "cat_gradient": gradient[0],
        "dog_gradient": gradient[1],
        "cat": sharp[0],
        "dog": sharp[1],
    }
    texts = {name: f"{value:.2f}".replace("-", "−") for name, value in values.items()}
    drawn = {"teacher_bars": bars("teacher", p_t, 20), "student_bars": bars("student", p_s, 150)}
    return HTML(PICTURE.substitute(texts, **drawn, tau=TEMPERATURE))


def explorer():
    """Return the explorer as HTML."""
    example = {
        "classes": CLASSES,
        "teacher": TEACHER,
        "student": STUDENT,
        "tau": TEMPERATURE,
        "divergence": "forward_kl",
        "squared": True,
    }
    names = "<p>&nbsp;<br>&nbsp;</p>" + "".join(f"<div>{name}</div>" for name in CLASSES)
    return HTML(EXPLORER.substitute(example=json.dumps(example), names=names))
