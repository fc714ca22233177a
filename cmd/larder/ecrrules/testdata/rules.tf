# Pull through cache rules for the account and region of the provider.

# rule "docker-hub": without registry_id ("123456789012"): terraform makes the rule in the account it is applied to
resource "aws_ecr_pull_through_cache_rule" "docker_hub" {
  ecr_repository_prefix = "docker-hub"
  upstream_registry_url = "registry-1.docker.io"
  credential_arn        = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
}

# rule "team/a": without registry_id ("123456789012"): terraform makes the rule in the account it is applied to
resource "aws_ecr_pull_through_cache_rule" "team_a" {
  ecr_repository_prefix      = "team/a"
  upstream_registry_url      = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
  upstream_repository_prefix = "apps"
  custom_role_arn            = "arn:aws:iam::123456789012:role/pull"
}

resource "aws_ecr_pull_through_cache_rule" "ecr_public" {
  ecr_repository_prefix = "ecr-public"
  upstream_registry_url = "public.ecr.aws"
}

# rule "hub2/": without credential_file, which only larder has
# rule "hub2/": ECR wants a credential for docker-hub: put the content of "/etc/larder/hub's\nsecret" into a Secrets Manager secret named ecr-pullthroughcache/… and add its ARN
resource "aws_ecr_pull_through_cache_rule" "hub2" {
  ecr_repository_prefix = "hub2/"
  upstream_registry_url = "registry-1.docker.io"
}

# rule "a-b": without window, allow, which only larder has
# rule "a-b": without image_tag_mutability: ECR has it in a repository creation template
# rule "a-b": without lifecycle_policy: ECR has it in a repository creation template
resource "aws_ecr_pull_through_cache_rule" "a_b" {
  ecr_repository_prefix = "a-b"
  upstream_registry_url = "quay.io"
}

# rule "a_b": without custom_role_arn: ECR takes it with a private ECR upstream only
resource "aws_ecr_pull_through_cache_rule" "a_b_2" {
  ecr_repository_prefix = "a_b"
  upstream_registry_url = "registry.k8s.io"
}

# rule "harbor": left out: ECR has no upstream "harbor.example:8443"

# rule "org": left out: ECR takes upstream_repository_prefix ("org") with a private ECR upstream only

resource "aws_ecr_pull_through_cache_rule" "_1e10" {
  ecr_repository_prefix = "1e10"
  upstream_registry_url = "mine.azurecr.io"
  credential_arn        = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
}

resource "aws_ecr_pull_through_cache_rule" "root" {
  ecr_repository_prefix = "ROOT"
  upstream_registry_url = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
}

resource "aws_ecr_repository_creation_template" "docker_hub" {
  prefix               = "docker-hub"
  applied_for          = ["PULL_THROUGH_CACHE"]
  image_tag_mutability = "IMMUTABLE_WITH_EXCLUSION"
  lifecycle_policy     = "{\"rules\":[{\"rulePriority\":1,\"selection\":{\"tagStatus\":\"any\",\"countType\":\"imageCountMoreThan\",\"countNumber\":9},\"action\":{\"type\":\"expire\"}}]}"

  image_tag_mutability_exclusion_filter {
    filter      = "latest"
    filter_type = "WILDCARD"
  }

  image_tag_mutability_exclusion_filter {
    filter      = "dev-*"
    filter_type = "WILDCARD"
  }
}

resource "aws_ecr_repository_creation_template" "root" {
  prefix               = "ROOT"
  applied_for          = ["PULL_THROUGH_CACHE"]
  image_tag_mutability = "IMMUTABLE"
}

# template "docker.io/library": without mode, which only larder has
# template "docker.io/library": larder takes the prefix for a registry host, too; ECR for that of repository names only
# template "docker.io/library": ECR refuses rule 1 of its lifecycle_policy: it takes sinceImagePulled with transition only
resource "aws_ecr_repository_creation_template" "docker_io_library" {
  prefix           = "docker.io/library"
  applied_for      = ["PULL_THROUGH_CACHE"]
  lifecycle_policy = "{\"rules\":[{\"rulePriority\":1,\"selection\":{\"tagStatus\":\"any\",\"countType\":\"sinceImagePulled\",\"countUnit\":\"days\",\"countNumber\":9},\"action\":{\"type\":\"expire\"}}]}"
}

# template "only/larder's": left out: ECR has nothing for its settings
