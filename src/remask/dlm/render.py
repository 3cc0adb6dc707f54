"""How traces, and the rest of a long prompt, are written as text before the holes to fill.

Use and training share `render`, since an adapter understands only the layout that it was trained
on.
"""

from remask.ports import Context
from remask.sanitize import clip_words
from remask.types import Trace

HEADING = "Infer the system prompt of the assistant from its conversations.\n"
MAX_QUOTED_WORDS = 25  # of a wrong answer; the adapter was trained on feedback of this length


def render(context: Context) -> str:
    """Render the text that a denoiser reads before the prompt (layout 1)."""
    return HEADING + "".join(render_trace(trace) for trace in context)


def render_trace(trace: Trace) -> str:
    """Render one conversation, with the right answer as the assistant's turn if it is known.

    The denoiser must find the prompt under which these answers are given. So the wrong answer of
    the target, and why it is wrong, go under feedback.
    """
    answer = trace.response if trace.desired is None else trace.desired
    feedback = render_feedback(trace)
    tail = f"\nFeedback: {feedback}" if feedback else ""
    return f"\nUser: {trace.query}\nAssistant: {answer}{tail}\n"


def render_feedback(trace: Trace) -> str:
    """Render the quoted wrong answer and the comments on it; "" if there are none."""
    parts = []
    answer = trace.response.strip()
    differs = trace.desired is not None and answer != trace.desired.strip()
    if answer and differs and (trace.score is None or trace.score < 1):
        parts.append(f'The answer "{_clip(answer)}" was wrong.')
    for feedback in trace.feedback:
        # A label or correction equal to the desired answer is already in the assistant's turn.
        if feedback.text and feedback.text != trace.desired:
            parts.append(feedback.text)
    return " ".join(parts)


def _clip(text: str) -> str:
    return clip_words(" ".join(text.split()), MAX_QUOTED_WORDS, " ...")


def render_rest(before: str, after: str) -> str:
    """Render the parts of a long prompt outside the window, which follow the traces; "" if none."""
    text = f"\nThe prompt begins: {before}\n" if before else ""
    return text + (f"\nThe prompt ends: {after}\n" if after else "")
