# lsi-ray with vLLM on CUDA: one image for the head, the render nodes and the GPU nodes.
#   docker build -t registry.example.com/lsi-ray:0.1.0 .
# Change: the CUDA version, to one that your driver knows (nvidia-smi) and that vLLM's wheels are built for.
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04

# `devel`, not `runtime`: Triton, FlashInfer and DeepGEMM compile kernels at the first start, with gcc, ptxas and nvcc.
# `rsync` and `openssh-client`: Ray's cluster launcher copies files with them. `tini` ends the processes Ray orphans.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc g++ git openssh-client python3 python3-dev python3-venv rsync tini \
 && rm -rf /var/lib/apt/lists/*

# KubeRay's and the launcher's commands expect a home they may write to, and that nobody is root.
RUN useradd --create-home --uid 1001 ray && install -d -o ray /opt/lsi /var/lib/lsi
USER 1001
WORKDIR /home/ray
ENV PATH=/opt/lsi/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/lsi

# First what changes rarely: vLLM and Ray are 9 GB, our own code is 1 MB.
COPY --chown=ray pyproject.toml README.md /tmp/lsi/
RUN mkdir /tmp/lsi/lsi_ray && touch /tmp/lsi/lsi_ray/__init__.py && pip install "/tmp/lsi[gpu]" && pip uninstall -y lsi-ray
COPY --chown=ray lsi_ray /tmp/lsi/lsi_ray
RUN pip install --no-deps /tmp/lsi && rm -rf /tmp/lsi && lsi --help > /dev/null

# The guard of the service's port runs in Serve's proxy, which has the environment of `ray start`. Ray's own port takes
# pickles from whoever holds its token: without one it does not start. Usage statistics would leave the network.
ENV RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=lsi_ray.service.front_door.guard \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_worker_niceness=0 \
    LSI_WORK_DIR=/var/lib/lsi
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["lsi", "--help"]
