# SPDX-License-Identifier: MIT
#
#   docker build -t redial .                  the programs and their libraries, and nothing else
#   docker build -t redial --target slim .    the same in a Debian with a shell
#
# rediald reads /etc/redial/rediald.conf, logs JSON to stderr, and needs no right and no place to write but /run/redial, for the socket
# by which redialctl reaches it.
ARG DEBIAN=bookworm

FROM debian:${DEBIAN}-slim AS build
WORKDIR /src
COPY tools/install-packages tools/packages tools/
RUN tools/install-packages build
COPY . .
RUN autoreconf -fi && \
    mkdir -p build/image && \
    cd build/image && \
    ../../configure --sysconfdir=/etc --with-systemdsystemunitdir=no && \
    make -j"$(nproc)" && \
    make install-strip DESTDIR=/stage
RUN containers/collect /stage /image && \
    containers/collect --packages /stage >/packages && \
    mkdir -p /owned && \
    mkdir -m 0700 /owned/redial

FROM debian:${DEBIAN}-slim AS slim
COPY --from=build /packages /usr/local/share/redial/packages
RUN apt-get update && \
    xargs apt-get install -y --no-install-recommends </usr/local/share/redial/packages && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /stage /
COPY --from=build --chown=65532:65532 /owned/ /run/
ENV RUNTIME_DIRECTORY=/run/redial REDIAL_LOG_FORMAT=json
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/local/bin/redialctl", "ready"]
ENTRYPOINT ["/usr/local/sbin/rediald"]

FROM scratch AS minimal
COPY --from=build /image /
COPY --from=build --chown=65532:65532 /owned/ /run/
ENV RUNTIME_DIRECTORY=/run/redial REDIAL_LOG_FORMAT=json
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/local/bin/redialctl", "ready"]
ENTRYPOINT ["/usr/local/sbin/rediald"]
