# docker build -t sdcorrect . && docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" sdcorrect translate -c job.yaml
# The image contains only the weights of mini. Downloads are kept in /cache; mount a volume there to keep them.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/sdcorrect
ENV PATH=/opt/sdcorrect/bin:$PATH SDCORRECT_CACHE=/cache HOME=/tmp
COPY . /src
RUN pip install --no-cache-dir '/src[heif,evaluate,view]' && rm -rf /src
# writable for every user, because --user may differ from the one below
RUN install -d -m 1777 /cache /work && useradd --create-home sdcorrect
USER sdcorrect
WORKDIR /work
ENTRYPOINT ["sdcorrect"]
CMD ["--help"]
