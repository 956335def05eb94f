#!/bin/sh
# In a build stage: installs this checkout beside its packages in /opt/voxray, and removes what does not run.
set -eu
cd "$(dirname "$0")/../.."
python=/opt/voxray/bin/python3
$python -m pip install --quiet --no-deps --no-build-isolation .
cp deploy/containers/ready.py /opt/voxray/
cd "$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
rm -r ray/jars ray/rllib ray/llm # for Java, for reinforcement learning; voxray calls vLLM itself
find . -type d -name tests -prune -exec rm -r {} +
$python -m pip uninstall --quiet --yes pip
