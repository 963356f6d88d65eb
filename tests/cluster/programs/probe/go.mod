module slm-swarm/tests/cluster/programs/probe

go 1.26.0
