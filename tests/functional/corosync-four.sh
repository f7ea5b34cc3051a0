#!/bin/bash
# Four hosts, of which one comes and one goes, and halves, with the log on corosync.
ENGINE=corosync
. "${top_srcdir:?}/tests/functional/hosts-four.sh"
