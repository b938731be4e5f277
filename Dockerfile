# docker build -t tasktokens .                                       # for CPUs, 2 GB
# docker build -t tasktokens:cuda --build-arg TORCH_INDEX=cu126 .    # for NVIDIA GPUs (docker run --gpus all)
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" tasktokens check mydata
# docs/operate/containers.md says more; tests/integration/test_container.py reads this file.
FROM python:3.12-slim

# Where torch and torchvision come from: cpu, cu126, … (download.pytorch.org/whl/).
ARG TORCH_INDEX=cpu
# Extras of the package, such as nyud,parquet,track.
ARG EXTRAS=parquet,review,track

# Installed before the package, so that a change of the code does not download them again.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/${TORCH_INDEX}

COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir "/source[${EXTRAS}]"
RUN rm -r /source

# Caches lie where any user can write, whatever --user and HOME are; a volume keeps them: -v hub:/cache.
# torch looks for the user's name, which --user with an unknown number does not have.
ENV TASKTOKENS_CACHE=/cache HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    MPLCONFIGDIR=/cache/matplotlib USER=tasktokens PYTHONUNBUFFERED=1
RUN mkdir -p /cache /work
RUN chmod 1777 /cache /work

RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin tasktokens
USER 1000
WORKDIR /work
ENTRYPOINT ["tasktokens"]
CMD ["--help"]
