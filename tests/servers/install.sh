#!/usr/bin/env bash
# Installs what the tests' servers need and only what is absent: MariaDB and Java by apt-get, the Kafka jars by Maven
# into a cache outside the checkout, so that the second run does nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

updated=
install() {
  [ -n "$updated" ] || { as_root apt-get update -qq; updated=yes; }
  echo "servers: installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# mariadbd is in sbin, which is not on everybody's path.
PATH=$PATH:/usr/sbin:/sbin
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || install mariadb-server
command -v java >/dev/null || install default-jre-headless

version=$(sed -n '/<artifactId>kafka_2.13</{n;s/.*<version>\(.*\)<\/version>.*/\1/p}' "$here/pom.xml")
jars=${WASMFLOW_KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/wasmflow/kafka-$version}
if [ ! -d "$jars" ]; then
  command -v mvn >/dev/null || install maven
  echo "servers: fetching Kafka $version into $jars"
  mkdir -p "$(dirname "$jars")"
  # Filled aside and renamed, so that an interrupted download is not taken for the server.
  aside=$(mktemp -d "$jars.XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$aside"
  chmod 755 "$aside"
  mv -T "$aside" "$jars"
fi
echo "servers: Kafka $version in $jars, $(mariadbd --version | grep -o 'Ver [^ ]*' | sed 's/Ver/MariaDB/')"
