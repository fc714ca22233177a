package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larder-project/larder/integration/internal/parts"
)

// namespace is containerd's, for all that is pulled here.
const namespace = "bench"

// node is a containerd that pulls.
type node struct {
	containerd *parts.Containerd
	conn       *grpc.ClientConn
	content    string // folder of its content store
	hosts      string // folder of hosts.toml files
}

// node starts one that has its own content store. It needs root.
func (sc *scene) node(ctx context.Context) (*node, error) {
	dir, err := sc.newDir()
	if err != nil {
		return nil, err
	}
	n, err := sc.startNode(ctx, dir, &server{})
	if err == nil {
		sc.onEnd(n.close)
	}
	return n, err
}

// startNode starts one in a folder. If the server is a larder with proxy plugins, that is
// its content store, and has to outlive it.
func (sc *scene) startNode(ctx context.Context, dir string, srv *server) (n *node, err error) {
	if err := sc.bin.Need("containerd", "ctr"); err != nil {
		return nil, err
	}
	n = &node{content: filepath.Join(dir, "containerd", "root", "io.containerd.content.v1.content"), hosts: filepath.Join(dir, "certs.d")}
	if err := os.MkdirAll(filepath.Join(n.hosts, "docker.io"), 0o755); err != nil {
		return nil, err
	}
	if srv.socket != "" {
		n.content = srv.root
	}
	if n.containerd, err = parts.StartContainerd(ctx, sc.bin, dir, parts.ContainerdOptions{Proxy: srv.socket}); err != nil {
		return nil, err
	}
	if n.conn, err = grpc.NewClient("unix://"+n.containerd.Address(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, errors.Join(fmt.Errorf("containerd's API: %w", err), n.containerd.Close())
	}
	return n, nil
}

func (n *node) close() error { return errors.Join(n.conn.Close(), n.containerd.Close()) }

// from has docker.io be a server on loopback from now on.
func (n *node) from(addr string) error {
	text := fmt.Sprintf("server = \"http://%s\"\n", addr)
	if err := os.WriteFile(filepath.Join(n.hosts, "docker.io", "hosts.toml"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("hosts.toml: %w", err)
	}
	return nil
}

// pull has containerd's transfer service bring an image into its content store, three
// blobs at a time as it does by default, and says how long that took.
func (n *node) pull(ctx context.Context, img *image, unpacked bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	ref := "docker.io/" + img.repo + ":" + tag
	source, err := asAny(&transfer.OCIRegistry{Reference: ref, Resolver: &transfer.RegistryResolver{HostDir: n.hosts}})
	if err != nil {
		return 0, err
	}
	platform := &types.Platform{OS: "linux", Architecture: runtime.GOARCH}
	store := &transfer.ImageStore{Name: ref, Platforms: []*types.Platform{platform}}
	if unpacked {
		store.Unpacks = []*transfer.UnpackConfiguration{{Platform: platform, Snapshotter: "overlayfs"}}
	}
	into, err := asAny(store)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := transferapi.NewTransferClient(n.conn).Transfer(ctx, &transferapi.TransferRequest{Source: source, Destination: into}); err != nil {
		return 0, fmt.Errorf("containerd: pull %s: %w", ref, err)
	}
	return time.Since(began), nil
}

// asAny packs a message as containerd's typeurl does: without a prefix before the name.
func asAny(m proto.Message) (*anypb.Any, error) {
	value, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("request to containerd: %w", err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

// check hashes what containerd has of an image: all of it has to be there.
func (n *node) check(img *image) error {
	dir := filepath.Join(n.content, "blobs", "sha256")
	for _, desc := range append(img.blobs(), img.manifest) {
		if err := checkFile(filepath.Join(dir, desc.Digest.Encoded()), desc, true); err != nil {
			return fmt.Errorf("containerd's content: %w", err)
		}
	}
	return nil
}

// forget takes everything out of containerd.
func (n *node) forget(ctx context.Context) error { return n.containerd.Forget(ctx, namespace) }

// checkFile compares a blob's file with its descriptor, by size alone or by its bytes.
func checkFile(path string, desc ocispec.Descriptor, bytes bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Size() != desc.Size {
		return fmt.Errorf("%s: %v, %w, want %d bytes", path, fi, err, desc.Size)
	}
	if !bytes {
		return nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != desc.Digest.Encoded() {
		return fmt.Errorf("%s has sha256 %s", path, got)
	}
	return nil
}

// checkStore compares larder's store with an image: all blobs of it are there, whole,
// or none is.
func checkStore(srv *server, img *image, there bool) error {
	dir := filepath.Join(srv.root, "blobs", "sha256")
	if !there {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) || len(entries) > 0 {
			return fmt.Errorf("larder's store: %d blobs, %w, want none", len(entries), err)
		}
		return nil
	}
	var missing []string
	for _, desc := range append(img.blobs(), img.manifest) {
		if err := checkFile(filepath.Join(dir, desc.Digest.Encoded()), desc, false); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("larder's store: %s", strings.Join(missing, "; "))
	}
	return nil
}
