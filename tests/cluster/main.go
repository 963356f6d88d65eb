// Command cluster brings up a real Kubernetes on a machine that has none, for the end-to-end tests, and takes it down
// without a trace. README.md beside it says what it is made of and what it cannot do.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

const usage = `usage: scripts/cluster COMMAND [--name NAME] [ARGUMENTS]

  up [--nodes 2] [--devices RESOURCE=NODE:COUNT,...]
                            bring the cluster up; stdout is one line for the shell: export KUBECONFIG=...
  down                      end and remove everything of it
  status                    how each part is; fails when one is not well
  env                       variables for the shell: KUBECONFIG, SLM_REGISTRY, SLM_REGISTRY_NAME, PATH
  load-image FILE...        load image archives (oci or docker format) into every node that is up
  logs [PROCESS]            the logs' folder and names, or one process's log
  apiserver stop|start      the API server alone
  registry stop|start       the registry alone
  node stop|start NODE      lose a node as by a power cut, with its pods; bring it back
  device start|stop RESOURCE=NODE:COUNT
                            a pretended accelerator on a node
`

// options are what the command line says, whatever the command.
type options struct {
	name    string
	root    string
	nodes   int
	devices string
	args    []string
}

// commands are what a person can ask for. Each writes to stdout only what a shell or a person reads as its answer.
var commands = map[string]func(context.Context, options) error{
	"up":          up,
	"down":        down,
	"status":      status,
	"env":         env,
	"load-image":  loadImage,
	"logs":        logs,
	"apiserver":   apiserver,
	"registry":    registry,
	"node":        nodeCommand,
	"device":      deviceCommand,
	"play-device": playDevice,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := process.KeepFiles(); err != nil {
		shell.Say("cluster: %v", err)
		os.Exit(1)
	}
	opts := parse(os.Args[1], os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := commands[os.Args[1]](ctx, opts); err != nil {
		shell.Say("cluster %s: %v", os.Args[1], err)
		os.Exit(1)
	}
}

func parse(command string, args []string) options {
	var opts options
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flags.StringVar(&opts.name, "name", "e2e", "")
	if command == "up" {
		flags.IntVar(&opts.nodes, "nodes", 2, "")
		flags.StringVar(&opts.devices, "devices", "", "")
	}
	_ = flags.Parse(args) // ends the process itself
	opts.args = flags.Args()
	opts.root = stateRoot()
	return opts
}

// stateRoot holds the state of all clusters.
func stateRoot() string {
	root, err := filepath.Abs(setting("SLM_CLUSTER_DIR", "/var/lib/slm-swarm-cluster"))
	if err != nil {
		shell.Say("cluster: SLM_CLUSTER_DIR: %v", err)
		os.Exit(1)
	}
	return root
}

// setting reads an environment variable.
func setting(name, otherwise string) string {
	if value := strings.TrimSpace(os.Getenv(name)); value != "" {
		return value
	}
	return otherwise
}
