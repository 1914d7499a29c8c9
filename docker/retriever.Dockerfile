# The retriever: `docker build --file docker/retriever.Dockerfile .` in the root of the checkout;
# `--build-arg DEVICE=cuda` adds ONNX Runtime and its libraries for NVIDIA GPUs (the host provides the driver).
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
COPY scripts/setup scripts/setup.lock.json scripts/
COPY scripts/provision scripts/provision
RUN scripts/setup --only embedder
ARG DEVICE=cpu
RUN scripts/setup --device "${DEVICE}" --only onnxruntime
COPY data data
RUN scripts/setup --only data
COPY shared shared
COPY retriever-server retriever-server
# Copied files are older than the build of the empty crates, and cargo compares modification times.
RUN find shared retriever-server -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --package retriever-server --package trainer --bin retriever-server

FROM ${RUNTIME_IMAGE}
ARG DEVICE=cpu
ARG REVISION=unknown
LABEL org.opencontainers.image.title="search-r1-retriever" \
      org.opencontainers.image.description="Answers POST /retrieve with passages of a corpus" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      search-r1.device="${DEVICE}"
# Fixed ids, so that a volume keeps its owner across images.
RUN groupadd --gid 10001 search-r1 \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin search-r1 \
 && install --directory --owner search-r1 --group search-r1 --mode 0755 /index
COPY --from=build /src/target/release/retriever-server /usr/local/bin/
COPY data/worldqa/NOTICE /usr/local/share/search-r1/worldqa/
COPY --from=build /src/.cache/data/worldqa/corpus.jsonl /usr/local/share/search-r1/worldqa/
COPY --from=build /src/.cache/onnxruntime/lib /usr/local/lib
# Registers the libraries with the loader, because the CUDA libraries find each other by name.
RUN ldconfig
COPY --from=build /src/.cache/models/all-minilm-l6-v2 /usr/local/share/search-r1/models/all-minilm-l6-v2
# Read by the NVIDIA container runtime, if the host has one.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# The first start may index a large corpus for hours, which is not a failure.
HEALTHCHECK --interval=3s --timeout=6s --retries=5 --start-period=24h CMD ["retriever-server", "health"]
ENTRYPOINT ["retriever-server"]
CMD ["serve"]
