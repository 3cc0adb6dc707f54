"""A prompt as a new version in MLflow's prompt registry.

No alias is set, so that nothing which serves prompts takes the version up by itself.
"""

from remask.errors import BackendError, ConfigError

try:
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise BackendError(
        f"the prompt registry needs mlflow 3.5 or newer ({error}); install with "
        "pip install 'remask[mlflow]'"
    ) from None


def register(name: str, template: str, commit_message: str, uri: str = "") -> str:
    """The URI of the version, as prompts:/NAME/3.

    uri: of MLflow's server or store; "": as MLflow is set up. Raises ConfigError where it cannot
    be reached, or refuses the prompt.
    """
    try:
        client = MlflowClient(uri or None, uri or None)
        made: str = client.register_prompt(name, template, commit_message).uri
    except Exception as error:  # of MLflow, its database or its network
        raise ConfigError(
            f"MLflow{f' at {uri}' if uri else ''} did not register the prompt {name!r}: {error}"
        ) from None
    return made
