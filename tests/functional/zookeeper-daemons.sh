#!/bin/bash
# Daemons of several hosts are killed, the engine's and the sheep, with the log in ZooKeeper.
ENGINE=zookeeper
. "${top_srcdir:?}/tests/functional/hosts-daemons.sh"
