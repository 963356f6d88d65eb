package layout

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Device is a pretended accelerator: Count units of an extended resource on one node.
type Device struct {
	Resource string `json:"resource"`
	Node     int    `json:"node"`
	Count    int    `json:"count"`
}

// DevicesMax bounds the units of one resource on one node.
const DevicesMax = 64

var resources = regexp.MustCompile(`^[a-z0-9.-]+\.[a-z]+/[a-z0-9.-]+$`)

// ParseDevice reads RESOURCE=NODE:COUNT, as in nvidia.com/gpu=node1:1.
func ParseDevice(text string) (Device, error) {
	wrong := fmt.Errorf("device %q: write RESOURCE=NODE:COUNT, as in nvidia.com/gpu=node1:1", text)
	resource, place, found := strings.Cut(text, "=")
	if !found || !resources.MatchString(resource) {
		return Device{}, wrong
	}
	node, count, found := strings.Cut(place, ":")
	if !found {
		return Device{}, wrong
	}
	index, err := strconv.Atoi(strings.TrimPrefix(node, "node"))
	if err != nil || index < 0 || NodeName(index) != node {
		return Device{}, wrong
	}
	units, err := strconv.Atoi(count)
	if err != nil || units < 1 || units > DevicesMax {
		return Device{}, wrong
	}
	return Device{Resource: resource, Node: index, Count: units}, nil
}

func (d Device) String() string {
	return fmt.Sprintf("%s=%s:%d", d.Resource, NodeName(d.Node), d.Count)
}

// Process is the name of the process that plays the device.
func (d Device) Process() string {
	return NodeName(d.Node) + "-device-" + strings.ReplaceAll(d.Resource, "/", "_")
}
