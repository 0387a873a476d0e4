#!/usr/bin/env bash
# Installs a real Kafka for tests and trials, pinned in pom.xml, into .cache/kafka (ignored by git): no Docker, jars only.
#
#   jars/          the broker and its command-line tools: cluster.sh and tool.sh run them
#
# Does nothing when it is there already. Any failure is an exit code other than 0 and a message.
# TUFLOG_KAFKA_DIR puts it elsewhere.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${TUFLOG_KAFKA_DIR:-$(cd "$here/../.." && pwd)/.cache/kafka}

say() { echo "kafka: $*"; }
die() { echo "kafka: $*" >&2; exit 1; }

mkdir -p "$dir"
# One installation at a time; a second caller waits and then finds everything in place.
exec 9>"$dir/.lock"
flock 9

java_works() { java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])'; }
packages=()
java_works || packages+=(openjdk-17-jre-headless)
command -v kcat >/dev/null || packages+=(kcat)
command -v openssl >/dev/null || packages+=(openssl)
command -v setpriv >/dev/null || packages+=(util-linux)
if [ ${#packages[@]} -gt 0 ]; then
  "$here/../apt.sh" "${packages[@]}" || die "could not install ${packages[*]}"
fi
java_works || die "Java 17 or newer is needed; found: $(java -version 2>&1 | head -1)"

# What is installed follows from these bytes; the stamp is written last.
stamp=$(cat "$here/setup.sh" "$here/pom.xml" | sha256sum)
if [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ] && compgen -G "$dir/jars/kafka_*.jar" >/dev/null; then
  exit 0
fi

command -v mvn >/dev/null || "$here/../apt.sh" maven || die "Maven is needed and could not be installed"
rm -rf "$dir/jars" "$dir/.stamp"
say "fetching Kafka's jars into $dir/jars"
mvn --batch-mode --quiet --file "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir/jars" \
  >"$dir/maven.log" 2>&1 || { cat "$dir/maven.log" >&2; die "Kafka's jars could not be fetched"; }
compgen -G "$dir/jars/kafka_*.jar" >/dev/null || die "Maven brought no broker into $dir/jars"
echo "$stamp" >"$dir/.stamp"
say "ready"
