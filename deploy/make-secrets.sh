#!/bin/sh
# Makes the secrets that docker-compose.yml asks for, once and never over existing ones: .env beside it has what
# Compose puts into it, deploy/secrets/ one file for each secret that a container reads.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .env ] && [ ! -e deploy/secrets ] || { echo ".env or deploy/secrets is there already; nothing was changed" >&2; exit 1; }

secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
digest() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

trainer=$(secret)
operator=$(secret)
metrics=$(secret)
redis=$(secret)
umask 077
cat > .env <<END
# The service knows the hashes only. TRAINER_KEY is for the client, OPERATOR_KEY for reloading a model.
TRAINER_KEY=$trainer
TRAINER_KEY_SHA256=$(digest "$trainer")
OPERATOR_KEY=$operator
OPERATOR_KEY_SHA256=$(digest "$operator")
METRICS_KEY_SHA256=$(digest "$metrics")
REDIS_PASSWORD=$redis
END
mkdir deploy/secrets
printf %s "$metrics" > deploy/secrets/metrics_key
printf %s "$redis" > deploy/secrets/redis_password
secret > deploy/secrets/grafana_password
# The folder is closed to other users of this machine; the files are mounted, and their readers are not root.
chmod 444 deploy/secrets/*
echo "TRAINER_KEY in .env is the client's api_key; deploy/secrets/grafana_password is that of Grafana's user admin"
