#!/bin/bash
# Daemons of several hosts are killed, the engine's and the sheep, with the log on corosync.
ENGINE=corosync
. "${top_srcdir:?}/tests/functional/hosts-daemons.sh"
