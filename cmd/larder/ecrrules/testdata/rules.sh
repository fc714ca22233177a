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
