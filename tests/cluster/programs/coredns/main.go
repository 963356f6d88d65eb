// Command coredns is CoreDNS with the plugins that a cluster needs and no others: the cloud providers' plugins, which
// the stock program also carries, are most of its build time and of its size.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which a query passes through the plugins; the order in the Corefile does not matter.
func init() {
	dnsserver.Directives = []string{"health", "ready", "errors", "log", "cache", "loadbalance", "kubernetes", "template"}
}

func main() {
	coremain.Run()
}
