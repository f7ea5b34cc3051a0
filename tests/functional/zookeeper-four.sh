#!/bin/bash
# Four hosts, of which one comes and one goes, and halves, with the log in ZooKeeper.
ENGINE=zookeeper
. "${top_srcdir:?}/tests/functional/hosts-four.sh"
