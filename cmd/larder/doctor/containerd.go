package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/cri"
	"github.com/larder-project/larder/plugin/hosts"
)

// Containerd says whether containerd asks larder first: whether its
// configuration has it read hosts.toml files, and whether these name the mirror.
func Containerd(o hosts.Options, config string) []Result {
	return append(containerdConfig(config, o.CertsDir), hostsFiles(o)...)
}

func containerdConfig(path, certsDir string) []Result {
	const check = "containerd config"
	found, err := hosts.InspectConfig(path, certsDir)
	if errdefs.IsInvalidArgument(err) {
		return []Result{Bad(Problem, check, err.Error(), "correct the file")}
	}
	if err != nil {
		return []Result{cannotRead(check, err)}
	}
	if len(found) == 0 {
		return []Result{Fine(check, "%s: both pull paths read hosts.toml files in %s", path, certsDir)}
	}
	return findings(Problem, check, found)
}

func findings(status Status, check string, found []hosts.Finding) []Result {
	var all []Result
	for _, f := range found {
		all = append(all, Bad(status, check, f.Path+": "+f.Problem, f.Fix))
	}
	return all
}

// hostsFiles compares the hosts.toml files with what setup would write.
func hostsFiles(o hosts.Options) []Result {
	const check = "hosts.toml"
	const setup = "larder setup containerd"
	files, err := hosts.Plan(o)
	if err != nil && !errdefs.IsFailedPrecondition(err) {
		return []Result{cannotRead(check, err)}
	}
	byState := map[hosts.State][]string{}
	for _, f := range files {
		byState[f.State] = append(byState[f.State], f.Host)
	}
	same, update, edited := byState[hosts.StateSame], byState[hosts.StateUpdate], byState[hosts.StateEdited]
	if len(same)+len(update)+len(edited) == 0 {
		return []Result{Bad(Problem, check, fmt.Sprintf("no file of larder's in %s: containerd does not ask larder", o.CertsDir), setup)}
	}
	var all []Result
	add := func(status Status, hosts []string, what, remedy string) {
		if len(hosts) > 0 {
			all = append(all, Bad(status, check, fmt.Sprintf("%s in %s: %s", strings.Join(hosts, ", "), o.CertsDir, what), remedy))
		}
	}
	add(Problem, update, "not as larder's configuration now wants it (address, secret or mode)", setup)
	add(Warning, edited, "changed by hand, and left alone", "see that it names "+o.MirrorURL+" first, or: "+setup+" --force")
	add(Warning, byState[hosts.StateNew], "no hosts.toml, and no larder in front where a folder is there", setup)
	add(Warning, byState[hosts.StateForeign], "somebody else's, so pulls go past larder", setup+"   (what is there is kept)")
	add(Warning, byState[hosts.StateConflict], "somebody else's, and another one is already kept", "move one of the two away, then: "+setup)
	if len(all) == 0 && err != nil {
		all = append(all, Bad(Warning, check, err.Error(), ""))
	}
	others, err := hosts.Inspect(o.CertsDir)
	all = append(all, findings(Warning, check, others)...)
	if err != nil {
		all = append(all, cannotRead(check, err))
	}
	if len(all) == 0 {
		all = append(all, Fine(check, "%d registry hosts in %s go to %s first", len(same), o.CertsDir, o.MirrorURL))
	}
	return all
}

// oldest is the first containerd that accepts larder's hosts.toml.
const oldestMajor, oldestMinor = 1, 6

// Runtime says which container runtime answers on a CRI socket, and if larder
// is to ask it for images in use, whether it tells.
func Runtime(ctx context.Context, socket string, asked bool) []Result {
	const check = "container runtime"
	client := cri.New(socket)
	name, version, err := client.Version(ctx)
	switch {
	case err != nil && asked && !errdefs.IsPermissionDenied(err):
		return []Result{Bad(Problem, check, "space.cri: "+withoutKind(err), "until it answers, what was in use last is kept")}
	case errdefs.IsPermissionDenied(err):
		return []Result{Bad(Unknown, check, withoutKind(err), "run larder doctor as root")}
	case err != nil:
		return []Result{Bad(Unknown, check, withoutKind(err), "name its socket in the configuration: [space] cri")}
	}
	all := []Result{runtimeVersion(name, version)}
	if !asked {
		return all
	}
	used, err := client.InUse(ctx)
	if err != nil {
		return append(all, Bad(Problem, "images in use", "space.cri: "+withoutKind(err), "until it answers, what was in use last is kept"))
	}
	return append(all, Fine("images in use", "%d digests, by %d names", len(used.Digests), len(used.References)))
}

func withoutKind(err error) string {
	for _, kind := range []error{errdefs.ErrUnavailable, errdefs.ErrPermissionDenied, errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrFailedPrecondition} {
		if text, ok := strings.CutSuffix(err.Error(), ": "+kind.Error()); ok {
			return text
		}
	}
	return err.Error()
}

// runtimeVersion judges a runtime by what it calls itself.
func runtimeVersion(name, version string) Result {
	const check = "container runtime"
	found := name + " " + version
	if name != "containerd" {
		return Bad(Warning, check, found+" does not read hosts.toml files", "point its own mirror settings at larder's mirror")
	}
	major, minor, err := parseVersion(version)
	if err != nil {
		return Bad(Unknown, check, found+": "+err.Error(), "")
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return Bad(Problem, check, fmt.Sprintf("%s is older than %d.%d, and does not read larder's hosts.toml files as meant", found, oldestMajor, oldestMinor),
			"use a newer containerd")
	}
	return Fine(check, "%s", found)
}

func parseVersion(text string) (major, minor int, err error) {
	parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, errors.New("not a version")
	}
	major, err = strconv.Atoi(parts[0])
	if err == nil {
		minor, err = strconv.Atoi(parts[1])
	}
	return major, minor, err
}

// KubeletUnread is the result for a kubelet's configuration that was not read.
func KubeletUnread(err error) Result {
	if errors.Is(err, fs.ErrNotExist) {
		return Bad(Unknown, "kubelet", "no configuration found: "+err.Error(), "name it with --kubelet-config; without a kubelet on this node it does not matter")
	}
	return cannotRead("kubelet", err)
}
