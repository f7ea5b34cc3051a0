#!/bin/bash
# Links between hosts are cut, with the log in ZooKeeper.
ENGINE=zookeeper
. "${top_srcdir:?}/tests/functional/hosts-split.sh"
