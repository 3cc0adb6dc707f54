"""A small task of Inspect: an agent of a repair desk closes cases with a tool, under a policy.

Run it as it is:    inspect eval examples/inspect/desk.py --model openai/gpt-4.1-mini
Optimise its policy: remask optimize --task examples/inspect/desk.py@desk --prompt-from system …

The policy stands inside a template, as it does in τ²-bench. What it lacks is said by the reviewer
alone, in the explanation of a score.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState, generate, system_message, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import store

POLICY = (
    "You are the agent of a repair desk. Read what the customer writes. "
    "Answer in short and friendly sentences. Close each case with the right code."
)
TEMPLATE = """<instructions>
Use the tools. Codes are: repair, refund, refuse.
</instructions>
<policy>
{policy}
</policy>
"""
THINGS = ("kettle", "lamp", "drill", "mixer", "toaster", "radio", "heater", "fan", "iron", "clock")
FAULTS = ("does not start", "makes a noise", "smells of smoke", "stops after a minute")
REVIEW = (
    "Ask for the receipt first.",
    "The warranty was not checked.",
    "Look at the invoice.",
    "Ask for the voucher before closing.",
    "The serial was not compared.",
)


def cases(copies: int) -> list[Sample]:
    """Every second case is hard: its code depends on a paper that the customer does not mention."""
    samples = []
    for number in range(copies * len(THINGS) * len(FAULTS)):
        thing, fault = THINGS[number % len(THINGS)], FAULTS[number // len(THINGS) % len(FAULTS)]
        hard = number % 2 == 1
        samples.append(
            Sample(
                id=f"case-{number}",
                input=f"Case {number}: my {thing} {fault}. What now?",
                target="refund" if hard else "repair",
                metadata={"review": REVIEW[number // 2 % len(REVIEW)] if hard else ""},
            )
        )
    return samples


@tool
def close_case() -> Tool:
    async def execute(code: str) -> str:
        """Close the case.

        Args:
            code: One of repair, refund, refuse.
        """
        store().set("code", code)
        return "The case is closed."

    return execute


@scorer(metrics=[accuracy()])
def reviewed() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        code = store().get("code", "none")
        right = code == target.text
        words = "" if right else state.metadata["review"]
        return Score(value=CORRECT if right else INCORRECT, answer=code, explanation=words)

    return score


@task
def desk(copies: int = 2) -> Task:
    return Task(
        dataset=MemoryDataset(cases(copies)),
        solver=[system_message(TEMPLATE.replace("{policy}", POLICY)), use_tools(close_case()), generate()],
        scorer=reviewed(),
    )
