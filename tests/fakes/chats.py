"""Chats of one question under one short system prompt."""

from remask.types import Chat, Message


def chat(text: str = "hello") -> Chat:
    return (Message("system", "Be brief."), Message("user", text))


def chats(*texts: object) -> list[Chat]:
    return [chat(str(text)) for text in texts]
