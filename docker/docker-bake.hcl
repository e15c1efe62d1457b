# Run from the folder above docker/:
#   SOURCE=/path/to/IOPaint docker buildx bake -f docker/docker-bake.hcl cpu
# Each variable is read from the environment.

variable "SOURCE" { default = "." }                    # folder (or git URL) with iopaint/ and web_app/
variable "FRONTEND" { default = "build" }              # build: npm run build; shipped: take web_app/dist as it is
variable "VERSION" { default = "latest" }              # tag iopaint:<variant>-VERSION
variable "REGISTRY" { default = "" }                   # prefix of the tags, with its slash: registry.example.com/team/
variable "TAGS" { default = "" }                       # comma-separated tags in place of the one above
variable "BASE" { default = "debian:bookworm-slim" }   # base image with apt and Python 3.11 in its archive
variable "REVISION" { default = "" }                   # commit, or digest of the tree
variable "RECIPE" { default = "" }                     # digest of the recipe
variable "CREATED" { default = "" }                    # RFC 3339
variable "RELEASE" { default = "1.6.0" }               # version for the target "release"
variable "CA_BUNDLE" { default = "" }                  # PEM file with extra CAs, handed over as a build secret
variable "TORCH_INDEX" { default = "https://download.pytorch.org/whl/cpu" }
variable "PYTHON_INDEX" { default = "" }
variable "NPM_REGISTRY" { default = "" }

group "default" { targets = ["cpu"] }

target "_network" {
  context = "docker"
  secret  = compact([notequal("", CA_BUNDLE) ? "id=ca,src=${CA_BUNDLE}" : ""])
  args = {
    BASE                = BASE
    UV_DEFAULT_INDEX    = PYTHON_INDEX
    NPM_CONFIG_REGISTRY = NPM_REGISTRY
  }
}

target "cpu" {
  inherits = ["_network"]
  target   = "cpu"
  contexts = { source = SOURCE }
  args = {
    VARIANT     = "cpu"
    FRONTEND    = FRONTEND
    TORCH_INDEX = TORCH_INDEX
  }
  tags = notequal("", TAGS) ? split(",", TAGS) : ["${REGISTRY}iopaint:cpu-${VERSION}"]
  labels = {
    "org.opencontainers.image.title"    = "IOPaint"
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.created"  = CREATED
    "io.iopaint.fleet.recipe"           = RECIPE
    "io.iopaint.fleet.variant"          = "cpu"
  }
}

# A release of the Python index, written to a folder as a source tree:
#   docker buildx bake -f docker/docker-bake.hcl release --set release.output=type=local,dest=DIR
target "release" {
  inherits = ["_network"]
  target   = "release"
  args     = { RELEASE = RELEASE }
}
