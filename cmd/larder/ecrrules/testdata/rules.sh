# Pull through cache rules for the account and region of the AWS command line.

aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix docker-hub \
  --upstream-registry-url registry-1.docker.io \
  --upstream-registry docker-hub \
  --credential-arn arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf \
  --registry-id 123456789012

aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix team/a \
  --upstream-registry-url 210987654321.dkr.ecr.us-east-1.amazonaws.com \
  --upstream-registry ecr \
  --upstream-repository-prefix apps \
  --custom-role-arn arn:aws:iam::123456789012:role/pull \
  --registry-id 123456789012

aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix ecr-public \
  --upstream-registry-url public.ecr.aws \
  --upstream-registry ecr-public

# rule "hub2/": without credential_file, which only larder has
# rule "hub2/": ECR wants a credential for docker-hub: put the content of "/etc/larder/hub's\nsecret" into a Secrets Manager secret named ecr-pullthroughcache/… and add its ARN
aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix hub2/ \
  --upstream-registry-url registry-1.docker.io \
  --upstream-registry docker-hub

# rule "a-b": without window, allow, which only larder has
# rule "a-b": without image_tag_mutability: ECR has it in a repository creation template
# rule "a-b": without lifecycle_policy: ECR has it in a repository creation template
aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix a-b \
  --upstream-registry-url quay.io \
  --upstream-registry quay

# rule "a_b": without custom_role_arn: ECR takes it with a private ECR upstream only
aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix a_b \
  --upstream-registry-url registry.k8s.io \
  --upstream-registry k8s

# rule "harbor": left out: ECR has no upstream "harbor.example:8443"

# rule "org": left out: ECR takes upstream_repository_prefix ("org") with a private ECR upstream only

aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix 1e10 \
  --upstream-registry-url mine.azurecr.io \
  --upstream-registry azure-container-registry \
  --credential-arn arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf

aws ecr create-pull-through-cache-rule \
  --ecr-repository-prefix ROOT \
  --upstream-registry-url 210987654321.dkr.ecr.us-east-1.amazonaws.com \
  --upstream-registry ecr

aws ecr create-repository-creation-template \
  --prefix docker-hub \
  --applied-for PULL_THROUGH_CACHE \
  --image-tag-mutability IMMUTABLE_WITH_EXCLUSION \
  --image-tag-mutability-exclusion-filters '[{"filterType":"WILDCARD","filter":"latest"},{"filterType":"WILDCARD","filter":"dev-*"}]' \
  --lifecycle-policy '{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}'

aws ecr create-repository-creation-template \
  --prefix ROOT \
  --applied-for PULL_THROUGH_CACHE \
  --image-tag-mutability IMMUTABLE

# template "docker.io/library": without mode, which only larder has
# template "docker.io/library": larder takes the prefix for a registry host, too; ECR for that of repository names only
# template "docker.io/library": ECR refuses rule 1 of its lifecycle_policy: it takes sinceImagePulled with transition only
aws ecr create-repository-creation-template \
  --prefix docker.io/library \
  --applied-for PULL_THROUGH_CACHE \
  --lifecycle-policy '{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":9},"action":{"type":"expire"}}]}'

# template "only/larder's": left out: ECR has nothing for its settings
