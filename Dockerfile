# SPDX-License-Identifier: GPL-2.0-or-later
#
# The image of slipstream: the program and the closure of its libraries on scratch. No shell, no package manager, nothing
# that writes. Built with docker (BuildKit) or buildah from a clean checkout:
#
#   docker build --build-arg COMMIT=$(git rev-parse --short HEAD) -t slipstream:0.1.0 .
#   buildah build --platform linux/arm64 ...        cross-compiled on the machine's own architecture, nothing is emulated
#
# BASE is any Debian 12 image; it only builds, none of its files but the libraries is in the result.
ARG BASE=debian:bookworm-slim
ARG BUILDPLATFORM

FROM --platform=$BUILDPLATFORM $BASE AS build
ARG TARGETARCH
WORKDIR /src
# The libraries are those of tests/deps-build.txt, for the target's architecture; the tools are the build machine's.
COPY tests/deps-build.txt deploy/image-root /src/
RUN set -eu; \
	arch=${TARGETARCH:-$(dpkg --print-architecture)}; \
	dpkg --add-architecture "$arch"; \
	apt-get update -qq; \
	case $arch in amd64) gcc=gcc-x86-64-linux-gnu ;; arm64) gcc=gcc-aarch64-linux-gnu ;; *) echo "no build for $arch" >&2; exit 1 ;; esac; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		"$gcc" cmake ninja-build pkg-config $(sed -n "s/^\(lib[^ ]*-dev\).*/\1:$arch/p" deps-build.txt) >/tmp/apt.log 2>&1 || \
		{ tail -n 20 /tmp/apt.log >&2; exit 1; }; \
	rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
COPY CMakeLists.txt /src/
COPY controller /src/controller
COPY k8s /src/k8s
COPY datapath /src/datapath
ARG COMMIT=unknown
RUN set -eu; \
	case ${TARGETARCH:-$(dpkg --print-architecture)} in amd64) t=x86_64-linux-gnu ;; arm64) t=aarch64-linux-gnu ;; esac; \
	export PKG_CONFIG_LIBDIR=/usr/lib/$t/pkgconfig:/usr/share/pkgconfig; \
	cmake -B /build -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=${t%%-*} -DCMAKE_C_COMPILER=$t-gcc \
		-DSLIPSTREAM_COMMIT="$COMMIT" >/dev/null; \
	cmake --build /build --target slipstream; \
	sh /src/image-root /build/slipstream "$t" /root-of-image

FROM scratch
ARG VERSION=0.1.0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="slipstream" \
	org.opencontainers.image.description="Accelerates the traffic that a Kubernetes node forwards, with nftables flowtables" \
	org.opencontainers.image.licenses="GPL-2.0-or-later" \
	org.opencontainers.image.version="$VERSION" \
	org.opencontainers.image.revision="$COMMIT"
COPY --from=build /root-of-image /
ENV PATH=/usr/bin
ENTRYPOINT ["/usr/bin/slipstream"]
CMD ["run"]
