# The trainer with its demo: `docker build --file docker/trainer.Dockerfile .` in the root of the checkout;
# `--build-arg DEVICE=cuda` uses libtorch for NVIDIA GPUs (the host provides the driver).
#
# Uses only instructions that both the classic builder and BuildKit support. Without access to an image registry,
# docker/base-images provides the two base images.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
# A mirror of the Python package index, for machines that cannot reach the default one.
ARG PIP_INDEX_URL
# The dependencies are built around empty crates, in a layer of their own that changes only with the lock file. Both
# images have the same lines up to here, and name both programs, so that what they share is compiled once.
COPY Cargo.toml Cargo.lock ./
COPY shared/Cargo.toml shared/
COPY retriever-server/Cargo.toml retriever-server/
COPY trainer/Cargo.toml trainer/
COPY tests/Cargo.toml tests/
RUN mkdir shared/src retriever-server/src trainer/src tests/src \
 && touch shared/src/lib.rs retriever-server/src/lib.rs trainer/src/lib.rs tests/src/lib.rs \
 && echo 'fn main() {}' | tee retriever-server/src/main.rs trainer/src/main.rs >tests/src/main.rs \
 && cargo build --release --locked --package retriever-server --package trainer --bin retriever-server
ARG DEVICE=cpu
COPY scripts/setup scripts/setup.lock.json scripts/
COPY scripts/provision scripts/provision
RUN scripts/setup --device "${DEVICE}" --only libtorch
RUN scripts/setup --only model
COPY data data
RUN scripts/setup --only data
ENV LIBTORCH=/src/.cache/libtorch
# The rest of the trainer's dependencies.
RUN cargo build --release --locked --package retriever-server --package trainer --bin trainer
COPY shared shared
COPY trainer trainer
# Copied files are older than the build of the empty crates, and cargo compares modification times.
RUN find shared trainer -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --package retriever-server --package trainer --bin trainer

FROM ${RUNTIME_IMAGE}
ARG DEVICE=cpu
ARG REVISION=unknown
LABEL org.opencontainers.image.title="search-r1-trainer" \
      org.opencontainers.image.description="Trains language models to search, by reinforcement learning" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      search-r1.device="${DEVICE}"
# Fixed ids, so that a volume keeps its owner across images.
RUN groupadd --gid 10001 search-r1 \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin search-r1 \
 && install --directory --owner search-r1 --group search-r1 --mode 0755 /models /runs
COPY --from=build /src/.cache/libtorch/lib /usr/local/lib
COPY --from=build /src/.cache/gguf /usr/local/share/search-r1/gguf
COPY --from=build /src/.cache/data /usr/local/share/search-r1/data
COPY scripts/demo scripts/demo.toml scripts/demo-short.txt /usr/local/share/search-r1/scripts/
COPY docker/trainer-entrypoint /usr/local/bin/
COPY --from=build /src/target/release/trainer /usr/local/bin/
# Read by the NVIDIA container runtime, if the host has one.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /runs
STOPSIGNAL SIGTERM
ENTRYPOINT ["trainer-entrypoint"]
CMD ["--help"]
