#!/usr/bin/env bash
# Fetches the jars of an Apache Kafka broker from Maven Central, for the tests. Usage: fetch-kafka.sh DIR
# What came before an interruption is in Maven's own cache, and is not fetched again.
set -euo pipefail
dir=${1:?usage: fetch-kafka.sh DIR}
version=4.1.1
[ -f "$dir/.complete-$version" ] && exit 0
echo "levada: fetching the jars of Apache Kafka $version"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>levada</groupId>
  <artifactId>brokers</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
  </dependencies>
</project>
XML
mvn --quiet --batch-mode -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/lib" >/dev/null
[ -s "$work/lib/kafka_2.13-$version.jar" ] || { echo "levada: the broker's jar did not come" >&2; exit 1; }
rm -rf "$dir"
mkdir -p "$dir"
mv "$work/lib" "$dir/lib"
touch "$dir/.complete-$version"
