# The connector with emulators for all services: what it does, without an account and without Rust.
#
#   docker build -t iothub-connector .
#   docker run --rm -it -p 127.0.0.1:7071:7071 iothub-connector
#
# The status page is then at http://127.0.0.1:7071/. What is deployed to Azure is made by `cargo xtask package`.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked
RUN mkdir /app && cp -r host.json rapidM2MForwarding rapidM2MSites status thingsNetwork* /app

FROM gcr.io/distroless/cc-debian12:nonroot
# Owned by the user: `local` leaves there where its emulators are.
COPY --from=build --chown=nonroot:nonroot /app /app
WORKDIR /app
COPY --from=build /src/target/release/iothub-connector /usr/local/bin/
EXPOSE 7071
ENTRYPOINT ["/usr/local/bin/iothub-connector"]
CMD ["local", "--host", "0.0.0.0", "--port", "7071"]
