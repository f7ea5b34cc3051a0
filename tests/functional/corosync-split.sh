#!/bin/bash
# Links between hosts are cut, with the log on corosync.
ENGINE=corosync
. "${top_srcdir:?}/tests/functional/hosts-split.sh"
