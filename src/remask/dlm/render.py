"""How traces, and the rest of a long prompt, are written before what a denoiser fills.

`render` is the one function that does so, for use and for training, since an adapter understands
only the layout that it was trained on. Knows text and records; knows no model and no torch.
"""

from remask.ports import Context
from remask.sanitize import clip_words
from remask.types import Trace

HEADING = "Infer the system prompt of the assistant from its conversations.\n"
WRONG_WORDS = 25  # of a wrong answer that is quoted; the adapter saw no longer feedback


def render(context: Context) -> str:
    """What a denoiser reads before the prompt (layout 1)."""
    return HEADING + "".join(render_trace(trace) for trace in context)


def render_trace(trace: Trace) -> str:
    """One conversation: the right answer in the assistant's turn, where it is known.

    The denoiser is asked for the prompt under which these conversations are right; so what the
    target answered instead, and why that was bad, stands under feedback.
    """
    answer = trace.response if trace.desired is None else trace.desired
    feedback = render_feedback(trace)
    tail = f"\nFeedback: {feedback}" if feedback else ""
    return f"\nUser: {trace.query}\nAssistant: {answer}{tail}\n"


def render_feedback(trace: Trace) -> str:
    """The wrong answer, quoted, and what was said about it; "" where there is nothing to say."""
    parts = []
    answer = trace.response.strip()
    differs = trace.desired is not None and answer != trace.desired.strip()
    if answer and differs and (trace.score is None or trace.score < 1):
        parts.append(f'The answer "{_clip(answer)}" was wrong.')
    for feedback in trace.feedback:
        # A label or correction that equals the desired answer already stands in the turn.
        if feedback.text and feedback.text != trace.desired:
            parts.append(feedback.text)
    return " ".join(parts)


def _clip(text: str) -> str:
    return clip_words(" ".join(text.split()), WRONG_WORDS, " ...")


def render_rest(before: str, after: str) -> str:
    """The parts of a long prompt outside the window, as text behind the traces ("" for none)."""
    text = f"\nThe prompt begins: {before}\n" if before else ""
    return text + (f"\nThe prompt ends: {after}\n" if after else "")
